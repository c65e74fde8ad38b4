#pragma once

// exp and log of vectors. Single precision within 2 units in the last place, without branches or calls (the
// polynomials of Cephes); double precision is the C library's.

#include <cmath>
#include <limits>

#include "cpu/vectors.h"

namespace task_aware {

/// exp(x) for x within [-87, 88]; NaN stays NaN.
template <typename V>
TASK_AWARE_INLINE V fast_exp(V x) {
  if constexpr (std::is_same_v<scalar_t<V>, double>) {
    for (int k = 0; k < kLanesOf<V>; ++k) x[k] = std::exp(x[k]);
    return x;
  } else {
    constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
    const V shifted = x * 1.44269504f + kRound;
    const V n = shifted - kRound;
    const V r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    V value = r * 1.9875691500e-4f + 1.3981999507e-3f;
    value = value * r + 8.3334519073e-3f;
    value = value * r + 4.1665795894e-2f;
    value = value * r + 1.6666665459e-1f;
    value = value * r + 5.0000001201e-1f;
    value = value * r * r + r + 1.0f;
    return value * as<V>((as<integers_t<V>>(shifted) << 23) + 0x3f800000);
  }
}

/// log(x) of normal positive x; infinity and NaN stay what they are.
template <typename V>
TASK_AWARE_INLINE V fast_log(V x) {
  if constexpr (std::is_same_v<scalar_t<V>, double>) {
    for (int k = 0; k < kLanesOf<V>; ++k) x[k] = std::log(x[k]);
    return x;
  } else {
    const auto bits = as<integers_t<V>>(x);
    const auto exponent = (bits - 0x3f3504f3) >> 23;  // the mantissa lies in [sqrt(1/2), sqrt(2))
    const V f = as<V>(bits - (exponent << 23)) - 1.0f;
    const V e = __builtin_convertvector(exponent, V);
    V value = f * 7.0376836292e-2f - 1.1514610310e-1f;
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
}

/// exp(-x), finite.
template <typename V>
TASK_AWARE_INLINE V odds_against(V x) {
  using Real = scalar_t<V>;
  constexpr Real kLimit = sizeof(Real) == 4 ? Real(87) : Real(700);
  return fast_exp(smaller(larger(-x, V{} - kLimit), V{} + kLimit));
}

template <typename V>
TASK_AWARE_INLINE V sigmoid(V x) {
  return 1 / (1 + odds_against(x));
}

}  // namespace task_aware
