#pragma once

// exp and log that the compiler can vectorise: no branches, no calls. Single precision within 2 units in the
// last place; double precision is the C library's.

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "common/parallel.h"

namespace task_aware {

/// exp(x), held within [1e-38, 2e38]; NaN stays NaN.
TASK_AWARE_INLINE float fast_exp(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  const float shifted = x * 1.44269504f + kRound;
  const float n = shifted - kRound;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float value = 1.9875691500e-4f;
  value = value * r + 1.3981999507e-3f;
  value = value * r + 8.3334519073e-3f;
  value = value * r + 4.1665795894e-2f;
  value = value * r + 1.6666665459e-1f;
  value = value * r + 5.0000001201e-1f;
  value = value * r * r + r + 1.0f;
  return value * std::bit_cast<float>((std::bit_cast<int32_t>(shifted) << 23) + 0x3f800000);
}

TASK_AWARE_INLINE double fast_exp(double x) { return std::exp(x); }

/// log(x) of a normal positive x; infinity and NaN stay what they are.
TASK_AWARE_INLINE float fast_log(float x) {
  const int32_t bits = std::bit_cast<int32_t>(x);
  const int32_t exponent = (bits - 0x3f3504f3) >> 23;  // the mantissa lies in [sqrt(1/2), sqrt(2))
  const float f = std::bit_cast<float>(bits - (exponent << 23)) - 1.0f;
  const float e = static_cast<float>(exponent);
  float value = 7.0376836292e-2f;
  value = value * f - 1.1514610310e-1f;
  value = value * f + 1.1676998740e-1f;
  value = value * f - 1.2420140846e-1f;
  value = value * f + 1.4249322787e-1f;
  value = value * f - 1.6668057665e-1f;
  value = value * f + 2.0000714765e-1f;
  value = value * f - 2.4999993993e-1f;
  value = value * f + 3.3333331174e-1f;
  value = value * f * f * f - e * 2.12194440e-4f - 0.5f * f * f;
  value = (f + value) + e * 0.693359375f;
  return x < std::numeric_limits<float>::infinity() ? value : x;
}

TASK_AWARE_INLINE double fast_log(double x) { return std::log(x); }

}  // namespace task_aware
