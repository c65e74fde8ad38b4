#pragma once

// Reductions over a warp or a thread block: the same order, so the same result, every run.

#include "cuda/launch.h"

namespace task_aware {

/// combine(...) of every lane's value, the same in all lanes.
template <typename T, typename Combine>
__device__ __forceinline__ T warp_reduce(T value, Combine combine) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    value = combine(value, __shfl_xor_sync(0xffffffffu, value, offset));
  }
  return value;
}

/// combine(...) of every thread's value, the same in all threads. `shared` holds kThreads / 32 values, which
/// nothing else uses since the last barrier.
template <int kThreads, typename T, typename Combine>
__device__ __forceinline__ T block_reduce(T value, T* shared, Combine combine) {
  value = warp_reduce(value, combine);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  value = shared[0];
#pragma unroll
  for (int warp = 1; warp < kThreads / 32; ++warp) value = combine(value, shared[warp]);
  return value;
}

}  // namespace task_aware
