#pragma once

// What the CPU and the CUDA side of pit_loss share: the kinds, the argument checks and the derivatives.

#include <optional>

#include "common/assignment.h"
#include "common/check.h"

namespace task_aware {

enum class PitKind : int64_t { kMse = 0, kL1 = 1, kBce = 2 };

inline void check_pit_arguments(const Tensor& estimates, const Tensor& targets,
                                const std::optional<Tensor>& mask, int64_t kind) {
  TASK_AWARE_CHECK(estimates.dim() >= 2 && same_shape(estimates, targets),
                   "pit_loss: estimates and targets must both be [B,S,*] of one shape.");
  TASK_AWARE_CHECK(estimates.scalar_type() == targets.scalar_type() && same_device(estimates, targets),
                   "pit_loss: estimates and targets must be of one dtype and on one device.");
  const int64_t S = estimates.size(1);
  TASK_AWARE_CHECK(S >= 1 && S <= kMaxSources, "pit_loss: got S = ", S, ", expected 1 to ", kMaxSources, ".");
  TASK_AWARE_CHECK(estimates.size(0) == 0 || estimates.numel() > 0,
                   "pit_loss: the sources have no elements.");
  TASK_AWARE_CHECK(kind >= 0 && kind <= 2, "pit_loss: unknown kind ", kind, ".");
  if (mask.has_value()) {
    TASK_AWARE_CHECK(mask->dim() == 2 && mask->size(0) == estimates.size(0) && mask->size(1) == S &&
                         mask->scalar_type() == ScalarType::Bool && same_device(estimates, *mask),
                     "pit_loss: mask must be a bool [B,S] beside the estimates.");
  }
}

/// The loss is kept in float64 for float64 data, otherwise in float32.
inline ScalarType pit_loss_type(const Tensor& estimates) {
  return estimates.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

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
