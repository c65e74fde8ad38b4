#pragma once

// Memory of large outputs. The C library gives a large buffer back to the system when it is freed, unless its
// guess of what comes next is right; the next one then comes as a page fault for every 4 KiB, which takes several
// times as long as a pass over the buffer. Huge pages are 512 times fewer.

#include <torch/csrc/stable/ops.h>

#include <cstdint>

#include "common/tensor.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace task_aware {

constexpr int64_t kHugePageBytes = int64_t{2} << 20;

/// A new tensor like `like`, in huge pages where it covers some and the system has them for those who ask.
inline Tensor new_output(const Tensor& like, torch::headeronly::IntHeaderOnlyArrayRef sizes) {
  Tensor output = torch::stable::new_empty(like, sizes);
#if defined(__linux__)
  const int64_t bytes = output.numel() * static_cast<int64_t>(output.element_size());
  if (bytes >= 2 * kHugePageBytes) {
    const auto begin = reinterpret_cast<uintptr_t>(output.mutable_data_ptr());
    const uintptr_t first = (begin + kHugePageBytes - 1) / kHugePageBytes * kHugePageBytes;
    const uintptr_t end = (begin + bytes) / kHugePageBytes * kHugePageBytes;
    madvise(reinterpret_cast<void*>(first), end - first, MADV_HUGEPAGE);  // advice: it may fail
  }
#endif
  return output;
}

}  // namespace task_aware
