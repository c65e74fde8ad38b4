#pragma once

// Groups of neighbouring elements that a thread reads and writes at once.

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

template <typename T, int kCount>
__device__ __forceinline__ void store(void* tensor, int64_t index, const Vector<T, kCount>& values) {
  *reinterpret_cast<Vector<T, kCount>*>(static_cast<T*>(tensor) + index) = values;
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
