#pragma once

// Tensor cores, from sm_80 on: a warp adds the product of a [16, K] and b [K, 8] to sum [16, 8] in float32.
// tests/cuda_host has a header of the same name.
//
// A row of a and a column of b are 8 words of 32 bits: 8 numbers in TF32 (K = 8), of whose float32 the last 13 bits
// are 0, or 16 in bfloat16 (K = 16), two a
// word, the first in its lower half. Of these a lane holds, with g = lane / 4 and q = lane % 4,
//   a     words (g, q), (g + 8, q), (g, q + 4), (g + 8, q + 4)
//   b     words (q, g), (q + 4, g)
//   sum   (g, 2 q), (g, 2 q + 1), (g + 8, 2 q), (g + 8, 2 q + 1)
// (PTX ISA, "Matrix fragments for mma.m16n8k8" and "... mma.m16n8k16".)

#include <cstdint>

#include "cuda/launch.h"

namespace task_aware {

/// The least architecture that has these instructions; code compiled for less does nothing.
constexpr int kTensorCores = 80;

__device__ __forceinline__ void multiply_add_bfloat16(float (&sum)[4], const uint4& a, const uint2& b) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b.x), "r"(b.y));
#endif
}

__device__ __forceinline__ void multiply_add_tf32(float (&sum)[4], const uint4& a, const uint2& b) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b.x), "r"(b.y));
#endif
}

}  // namespace task_aware
