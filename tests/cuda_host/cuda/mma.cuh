#pragma once

// In place of csrc/cuda/mma.cuh: the same fragments, multiplied by tensor_core.cpp.

#include "cuda/launch.h"
#include "tensor_core.h"

namespace task_aware {

constexpr int kTensorCores = 80;

inline void multiply_add_bfloat16(float (&sum)[4], const uint4& a, const uint2& b) {
  cuda_host::multiply_add_bfloat16(sum, {a.x, a.y, a.z, a.w}, {b.x, b.y});
}

inline void multiply_add_tf32(float (&sum)[4], const uint4& a, const uint2& b) {
  cuda_host::multiply_add_tf32(sum, {a.x, a.y, a.z, a.w}, {b.x, b.y});
}

}  // namespace task_aware
