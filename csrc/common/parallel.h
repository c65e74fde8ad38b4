#pragma once

// parallel_for(begin, end, grain, [&](int64_t first, int64_t last) {...}) over torch's own thread pool, so
// that torch.set_num_threads() holds here too. `grain` is the least number of iterations worth a thread.

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>

namespace task_aware {

using torch::stable::parallel_for;

/// Elements that one thread should at least touch before a second one pays off.
constexpr int64_t kGrainElements = 1 << 15;

/// The grain of a loop whose iterations touch `elements` each.
inline int64_t grain_for(int64_t elements) {
  return std::max<int64_t>(1, kGrainElements / std::max<int64_t>(1, elements));
}

// Whether functions are compiled for several x86 instruction sets, see run_vectorised in cpu/vectors.h.
#if !defined(TASK_AWARE_X86_LEVELS) && defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    __GNUC__ >= 12
#define TASK_AWARE_X86_LEVELS 1
#endif

// What such functions call must be inlined into them.
#define TASK_AWARE_INLINE inline __attribute__((always_inline))
#define TASK_AWARE_LAMBDA __attribute__((always_inline))  // after a lambda's parameters

// Before a loop whose iterations read nothing that others write; clang finds that out as the loop runs.
#if defined(__GNUC__) && !defined(__clang__)
#define TASK_AWARE_IVDEP _Pragma("GCC ivdep")
#else
#define TASK_AWARE_IVDEP
#endif

}  // namespace task_aware
