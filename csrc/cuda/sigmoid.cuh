#pragma once

#include "cuda/approximate.cuh"

namespace task_aware {

/// By the special function unit.
__device__ __forceinline__ float sigmoid(float x) {
  constexpr float kLog2E = 1.44269504f;
  return approximate_reciprocal(1 + approximate_exp2(-kLog2E * x));
}

__device__ __forceinline__ double sigmoid(double x) { return 1 / (1 + exp(-x)); }

}  // namespace task_aware
