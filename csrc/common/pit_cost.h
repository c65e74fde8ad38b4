#pragma once

// The costs of pit_loss, which its CPU and CUDA kernels share: the kinds, the pairs' costs and derivatives.
//
// snr and si_sdr are ratios of a pair's energies, in dB. They come from sums of squared differences: |e-t|^2,
// and |t|^2 and |e|^2, which are those from a row of zeros. So their kernels sum as mse does, over S+1 rows of
// which the last is 0.

#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "common/accumulate.h"
#include "common/host_device.h"

namespace task_aware {

enum class PitKind : int64_t { kMse = 0, kL1 = 1, kBce = 2, kSnr = 3, kSiSdr = 4 };

constexpr int64_t kPitKinds = 5;

TASK_AWARE_HOST_DEVICE constexpr bool is_ratio(PitKind kind) {
  return kind == PitKind::kSnr || kind == PitKind::kSiSdr;
}

/// The type of a kind's sums over a few elements: si_sdr takes small differences of them.
template <PitKind kKind, typename T>
using pit_sum_t = std::conditional_t<kKind == PitKind::kSiSdr, double, accumulate_t<T>>;

/// The rows that pass each other: the sources, and the zeros of a ratio.
TASK_AWARE_HOST_DEVICE constexpr int64_t pit_rows(PitKind kind, int64_t S) { return S + is_ratio(kind); }

/// By how much a pair's cost counts once in the loss of a target: a mean over elements, or the ratio itself.
TASK_AWARE_HOST_DEVICE inline double pit_weight(PitKind kind, int64_t N) {
  return is_ratio(kind) ? 1.0 : 1.0 / static_cast<double>(N);
}

/// Added to every energy of a ratio, so that silence has finite ones.
constexpr double kEnergyFloor = 1.0 / (1 << 23);

constexpr double kDecibels = 4.342944819032518;  // 10 / ln 10

/// The derivative of a pair's ratio by each element of one of the two: residual (e - scale t) + target t.
template <typename Real>
struct Slope {
  Real scale, residual, target;
};

/// Those by the estimate and by the target, as the forward leaves them to the backward.
struct Slopes {
  double scale, by_estimate[2], by_target[2];

  template <typename Real>
  TASK_AWARE_HOST_DEVICE Slope<Real> of_estimate() const {
    return {static_cast<Real>(scale), static_cast<Real>(by_estimate[0]), static_cast<Real>(by_estimate[1])};
  }
  template <typename Real>
  TASK_AWARE_HOST_DEVICE Slope<Real> of_target() const {
    return {static_cast<Real>(scale), static_cast<Real>(by_target[0]), static_cast<Real>(by_target[1])};
  }
};
constexpr int64_t kSlopes = 5;
static_assert(sizeof(Slopes) == kSlopes * sizeof(double));

/// A pair's energies |e-t|^2, |t|^2 and |e|^2 and what follows from them.
struct PairEnergies {
  double error, target, estimate;

  /// Where e is closest to a multiple of t; the reference of a plain ratio is t itself.
  TASK_AWARE_HOST_DEVICE double scale(PitKind kind) const {
    if (kind == PitKind::kSnr) return 1;
    return (estimate + target - error) / 2 / (target + kEnergyFloor);
  }

  /// The energy of e - scale t.
  TASK_AWARE_HOST_DEVICE double residual(PitKind kind) const {
    if (kind == PitKind::kSnr) return error;
    const double factor = scale(kind), product = (estimate + target - error) / 2;
    const double energy = estimate - factor * (2 * product - factor * target);
    return energy < 0 ? 0.0 : energy;  // NaN stays NaN
  }

  /// The negative ratio in dB.
  TASK_AWARE_HOST_DEVICE double cost(PitKind kind) const {
    const double factor = scale(kind);
    return kDecibels * log((residual(kind) + kEnergyFloor) / (factor * factor * target + kEnergyFloor));
  }

  TASK_AWARE_HOST_DEVICE Slopes slopes(PitKind kind) const {
    const double factor = scale(kind), of_target = 1 / (target + kEnergyFloor);
    const double of_residual = 1 / (residual(kind) + kEnergyFloor);
    constexpr double twice = 2 * kDecibels;
    if (kind == PitKind::kSnr) {
      return {1, {twice * of_residual, 0}, {-twice * of_residual, -twice * of_target}};
    }
    // The scale depends on both; but for the floors it is the best one and adds nothing to the residual's.
    const double of_scaled = 1 / (factor * factor * target + kEnergyFloor);
    const double floor = kEnergyFloor * of_target * of_residual, kept = target * of_target * of_scaled;
    return {factor,
            {twice * of_residual, -twice * factor * (floor + kept)},
            {-twice * factor * (of_residual + floor + kept),
             twice * factor * factor * kEnergyFloor * of_target * (of_residual - of_scaled)}};
  }
};

template <typename Real>
TASK_AWARE_HOST_DEVICE inline Real log_clamped(Real logarithm) {
  return logarithm < Real(-100) ? Real(-100) : logarithm;  // NaN stays NaN
}

/// d(cost)/d(estimate) of one element; for bce as torch has it, finite at 0 and 1. Only ratios have a slope.
template <PitKind kKind, typename Real>
TASK_AWARE_HOST_DEVICE inline Real estimate_derivative(Real estimate, Real target, const Slope<Real>& slope) {
  const Real difference = estimate - target;
  if constexpr (is_ratio(kKind)) {
    return slope.residual * (estimate - slope.scale * target) + slope.target * target;
  } else if constexpr (kKind == PitKind::kMse) {
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
TASK_AWARE_HOST_DEVICE inline Real target_derivative(Real estimate, Real target, const Slope<Real>& slope) {
  if constexpr (is_ratio(kKind)) {
    return estimate_derivative<kKind>(estimate, target, slope);
  } else if constexpr (kKind == PitKind::kBce) {
    return log_clamped(static_cast<Real>(log1p(-estimate))) - log_clamped(static_cast<Real>(log(estimate)));
  } else {
    return -estimate_derivative<kKind>(estimate, target, slope);
  }
}

}  // namespace task_aware
