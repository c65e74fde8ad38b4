#pragma once

// The costs of pit_loss, which its CPU and CUDA kernels share: the kinds and their derivatives.

#include <cmath>
#include <cstdint>

#include "common/host_device.h"

namespace task_aware {

enum class PitKind : int64_t { kMse = 0, kL1 = 1, kBce = 2 };

template <typename Real>
TASK_AWARE_HOST_DEVICE inline Real log_clamped(Real logarithm) {
  return logarithm < Real(-100) ? Real(-100) : logarithm;  // NaN stays NaN
}

/// d(cost)/d(estimate) of one element; for bce as torch has it, finite at 0 and 1.
template <PitKind kKind, typename Real>
TASK_AWARE_HOST_DEVICE inline Real estimate_derivative(Real estimate, Real target) {
  const Real difference = estimate - target;
  if constexpr (kKind == PitKind::kMse) {
    return 2 * difference;
  } else if constexpr (kKind == PitKind::kL1) {
    return difference > 0 ? Real(1) : (difference < 0 ? Real(-1) : difference);
  } else {
    const Real variance = (1 - estimate) * estimate;
    return difference / (variance < Real(1e-12) ? Real(1e-12) : variance);
  }
}

/// d(cost)/d(target) of one element.
template <PitKind kKind, typename Real>
TASK_AWARE_HOST_DEVICE inline Real target_derivative(Real estimate, Real target) {
  if constexpr (kKind == PitKind::kBce) {
    return log_clamped(static_cast<Real>(log1p(-estimate))) - log_clamped(static_cast<Real>(log(estimate)));
  } else {
    return -estimate_derivative<kKind>(estimate, target);
  }
}

}  // namespace task_aware
