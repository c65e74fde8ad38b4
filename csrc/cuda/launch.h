#pragma once

// The door from host code to kernels. Kernels (*.cuh) and the functions beside them that launch them include
// this and nothing of torch: tests/cuda_host has a header of the same name, which runs them without a GPU.

#include <cuda_runtime.h>

#include <type_traits>

#include "common/check.h"

namespace task_aware {

struct Launch {
  const char* kernel;  // its name, for errors
  dim3 grid;
  unsigned int threads;
  cudaStream_t stream;
  size_t shared_bytes = 0;  // of dynamic_shared_memory()
};

/// kernel<<<...>>>(params...); an error if CUDA refuses.
template <typename... Params>
void launch(const Launch& how, void (*kernel)(Params...), const std::type_identity_t<Params>&... params) {
  constexpr size_t kGrantedWithoutAsking = 48 * 1024;
  if (how.shared_bytes > kGrantedWithoutAsking) {
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         static_cast<int>(how.shared_bytes));
  }
  kernel<<<how.grid, how.threads, how.shared_bytes, how.stream>>>(params...);
  const cudaError_t error = cudaGetLastError();
  TASK_AWARE_CHECK(error == cudaSuccess, how.kernel, ": the CUDA kernel could not be launched (",
                   cudaGetErrorString(error), ").");
}

/// What a kernel's code for this device was compiled for: 80 for sm_80 or compute_80.
template <typename... Params>
int architecture_of(void (*kernel)(Params...)) {
  cudaFuncAttributes attributes;
  const cudaError_t error = cudaFuncGetAttributes(&attributes, kernel);
  TASK_AWARE_CHECK(error == cudaSuccess, "task_aware: cannot query a CUDA kernel (",
                   cudaGetErrorString(error), ").");
  return attributes.ptxVersion;
}

/// The block's `shared_bytes`.
__device__ __forceinline__ void* dynamic_shared_memory() {
  extern __shared__ __align__(16) unsigned char memory[];
  return memory;
}

}  // namespace task_aware
