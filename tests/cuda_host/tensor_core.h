#pragma once

// A GPU's tensor cores, for cuda/mma.cuh.
//
// The arithmetic is that of sm_80, the least exact of those that have it, as others measured it (github.com/microsoft/
// MMA-Sim): half of the products at a time, exact, are added to the sum; all of these are cut off 24 bits below the
// largest exponent, and what they add up to is cut off to float32. sm_90 keeps one bit more and adds all products at once.

#include <cstdint>

namespace cuda_host {

/// sum += a · b of a warp, in the fragments of cuda/mma.cuh; a word holds two bfloat16, or one number in TF32.
void multiply_add_bfloat16(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
void multiply_add_tf32(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);

}  // namespace cuda_host
