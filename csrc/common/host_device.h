#pragma once

// Marks arithmetic that the CPU and the CUDA kernels share.

#if defined(__CUDACC__)
#define TASK_AWARE_HOST_DEVICE __host__ __device__
#define TASK_AWARE_HOST_DEVICE_INLINE __host__ __device__ __forceinline__
#else
#define TASK_AWARE_HOST_DEVICE
#define TASK_AWARE_HOST_DEVICE_INLINE inline __attribute__((always_inline))
#endif
