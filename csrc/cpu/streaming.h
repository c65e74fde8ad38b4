#pragma once

// Stores that go past the caches. A plain store first reads the line that it overwrites: a third of the traffic
// of a pass that reads one large tensor and writes another. Past the caches is also out of them, so this pays
// only where the next reader would not find the values there anyway.

#include <algorithm>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "common/parallel.h"

namespace task_aware {

/// Bytes read and written by one pass beyond which its output is not expected to stay in a cache.
constexpr int64_t kCacheBytes = int64_t{32} << 20;

/// to[n] = value(n) for n in [0, count), past the caches if `streams`; then finish_streaming() must follow before
/// another thread may read them. `value` must be TASK_AWARE_LAMBDA.
template <typename T, typename Value>
TASK_AWARE_INLINE void write_values(T* to, int64_t count, bool streams, Value value) {
  int64_t n = 0;
#if defined(__SSE2__)
  constexpr int64_t kLine = 64 / sizeof(T);
  if (streams) {
    const auto misaligned = static_cast<int64_t>(reinterpret_cast<uintptr_t>(to) % 64 / sizeof(T));
    for (; n < std::min(count, (kLine - misaligned) % kLine); ++n) to[n] = value(n);
    for (; n + kLine <= count; n += kLine) {
      alignas(64) T line[kLine];
      for (int64_t k = 0; k < kLine; ++k) line[k] = value(n + k);
      for (int part = 0; part < 4; ++part) {
        _mm_stream_si128(reinterpret_cast<__m128i*>(to + n) + part,
                         _mm_load_si128(reinterpret_cast<const __m128i*>(line) + part));
      }
    }
  }
#endif
  TASK_AWARE_IVDEP
  for (; n < count; ++n) to[n] = value(n);
}

/// Stores past the caches are ordered with no others: this one waits for them.
inline void finish_streaming() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

}  // namespace task_aware
