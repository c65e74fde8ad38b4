#pragma once

// In place of csrc/cuda/approximate.cuh: results as far from the truth as PTX allows a GPU, above or below it by the
// bits of the argument.

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace task_aware {

inline float without_subnormals(double x) {
  return std::fabs(x) < std::numeric_limits<float>::min() ? static_cast<float>(std::copysign(0.0, x))
                                                          : static_cast<float>(x);
}

inline double with_sign_of(float x, double error) {
  return std::popcount(std::bit_cast<uint32_t>(x)) % 2 == 0 ? error : -error;
}

inline float approximate_exp2(float x) {
  const double exact = std::exp2(static_cast<double>(without_subnormals(x)));
  return without_subnormals(exact * (1 + with_sign_of(x, 0x1p-22)));
}

inline float approximate_log2(float x) {
  const double exact = std::log2(static_cast<double>(without_subnormals(x)));
  const double error = with_sign_of(x, 0x1p-22);
  return without_subnormals(x > 0.5f && x < 2 ? exact + error : exact * (1 + error));
}

inline float approximate_reciprocal(float x) {
  const double exact = 1 / static_cast<double>(without_subnormals(x));
  return without_subnormals(exact * (1 + with_sign_of(x, 0x1p-23)));
}

}  // namespace task_aware
