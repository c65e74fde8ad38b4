#pragma once

// Groups of neighbouring elements that a thread reads and writes at once.

#include <bit>
#include <cstdint>
#include <initializer_list>

#include "cuda/launch.h"

namespace task_aware {

template <typename T, int kCount>
struct alignas(kCount * sizeof(T)) Vector {
  T values[kCount];
};

template <typename T, int kCount>
__device__ __forceinline__ Vector<T, kCount> load(const void* tensor, int64_t index) {
  return *reinterpret_cast<const Vector<T, kCount>*>(static_cast<const T*>(tensor) + index);
}

/// The result stays in the L2 cache, where the next kernel may find it. Of a plain assignment of 16 bytes nvcc makes
/// one store per element, each of a warp's lanes 16 bytes apart.
template <typename T, int kCount>
__device__ __forceinline__ void store(void* tensor, int64_t index, const Vector<T, kCount>& values) {
  T* const address = static_cast<T*>(tensor) + index;
  if constexpr (sizeof(values) == sizeof(uint4)) {
    __stwb(reinterpret_cast<uint4*>(address), std::bit_cast<uint4>(values));
  } else {
    *reinterpret_cast<Vector<T, kCount>*>(address) = values;
  }
}

/// Whether every row of `row` elements falls into whole groups, aligned in all the tensors; null is aligned.
template <typename T, int kCount>
bool falls_into_groups(int64_t row, std::initializer_list<const void*> tensors) {
  bool aligned = row % kCount == 0;
  for (auto tensor = tensors.begin(); tensor != tensors.end(); ++tensor) {
    aligned &= reinterpret_cast<uintptr_t>(*tensor) % sizeof(Vector<T, kCount>) == 0;
  }
  return aligned;
}

}  // namespace task_aware
