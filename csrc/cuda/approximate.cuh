#pragma once

// The special function unit: one instruction each, subnormal numbers taken for 0. tests/cuda_host has a header of
// the same name, whose results err by as much as is allowed here.

namespace task_aware {

/// 2^x within a relative error of 2^-22.
__device__ __forceinline__ float approximate_exp2(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

/// log2(x), x >= 0, within 2^-22 where x lies between 0.5 and 2, elsewhere within a relative error of 2^-22.
__device__ __forceinline__ float approximate_log2(float x) {
  float result;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

/// 1/x within a relative error of 2^-23.
__device__ __forceinline__ float approximate_reciprocal(float x) {
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

}  // namespace task_aware
