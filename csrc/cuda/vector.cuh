#pragma once

// Groups of neighbouring elements that a thread reads and writes at once.

#include <bit>
#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "cuda/launch.h"

namespace task_aware {

constexpr int kGroupBytes = 16;  // that a thread reads at once where addresses allow

template <typename T, int kCount>
struct alignas(kCount * sizeof(T)) Vector {
  T values[kCount];
};

/// A group as it lies in memory. A uint4 is moved by one instruction; an array nvcc takes apart, into a register for
/// each element and a store for each element.
template <typename T, int kCount>
using Packed = std::conditional_t<sizeof(Vector<T, kCount>) == sizeof(uint4), uint4, Vector<T, kCount>>;

template <typename T, int kCount>
__device__ __forceinline__ Packed<T, kCount> load_packed(const void* tensor, int64_t index) {
  return *reinterpret_cast<const Packed<T, kCount>*>(static_cast<const T*>(tensor) + index);
}

template <typename T, int kCount>
__device__ __forceinline__ Vector<T, kCount> load(const void* tensor, int64_t index) {
  return std::bit_cast<Vector<T, kCount>>(load_packed<T, kCount>(tensor, index));
}

/// kCount neighbouring values, 16 bytes at once.
template <int kCount, typename A>
__device__ __forceinline__ void load_groups(const A* from, A (&values)[kCount]) {
  constexpr int kGroup = kGroupBytes / sizeof(A);
#pragma unroll
  for (int first = 0; first < kCount; first += kGroup) {
    const auto group = load<A, kGroup>(from, first);
#pragma unroll
    for (int k = 0; k < kGroup; ++k) values[first + k] = group.values[k];
  }
}

/// What is stored stays in the L2 cache, where the next kernel may find it.
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
