#pragma once

// Reductions over a thread block by halving in shared memory: the same order, so the same result, every run.

#include "cuda/launch.h"

namespace task_aware {

/// combine(...) of every thread's value, the same in all threads. `shared` holds kThreads values, kThreads a
/// power of 2.
template <int kThreads, typename T, typename Combine>
__device__ T block_reduce(T value, T* shared, Combine combine) {
  __syncthreads();  // the last reduction's result has been read
  shared[threadIdx.x] = value;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) shared[threadIdx.x] = combine(shared[threadIdx.x], shared[threadIdx.x + half]);
    __syncthreads();
  }
  return shared[0];
}

}  // namespace task_aware
