// pit_loss: loss[b] = 1/(M*N) * min over permutations of sum over existing targets j and elements n of
//                     d(estimates[b, permutation[b,j], n], targets[b,j,n])
//   estimates, targets [B,S,N]; mask [B,S]: the M existing targets of each item; loss [B]
//   allowed [B,S,S]: which estimates (last) the existing targets may have
//   permutation [B,S]: the lexicographically first
//   d: mse (e-t)^2 · l1 |e-t| · bce -(t*max(log e,-100) + (1-t)*max(log(1-e),-100))
// snr and si_sdr: loss[b] = 1/M * min over permutations of the sum of the pairs' negative ratios in dB,
//   10 log10((|e-at|^2 + f) / (|at|^2 + f)) with f = 2^-23; a is 1 (snr) or e.t / (|t|^2 + f) (si_sdr)
//
// Traffic: forward reads 2*B*S*N elements once; backward reads them again and writes up to as many (past the
// caches where they are too many to stay there).
// One task is the pair costs of a chunk of one item (pit_loss_costs.h). Chunks are added in order, so the result
// does not depend on the number of threads.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

#include "common/arguments.h"
#include "common/dispatch.h"
#include "common/parallel.h"
#include "common/pit_cost.h"
#include "cpu/pages.h"
#include "cpu/pit_loss_costs.h"
#include "cpu/streaming.h"

namespace task_aware {
namespace {

constexpr int64_t kChunk = 8192;  // elements of a row per task

/// An item's sums over the pairs that count.
struct Item {
  double* sums;  // [R,R] of R = pit_rows(kind, S), row = target
  PairsOf pairs;
  int64_t N;
  PitKind kind;

  PairEnergies energies(int target, int estimate) const {
    const int64_t rows = pit_rows(kind, pairs.S), S = pairs.S;
    return {sums[target * rows + estimate], sums[target * rows + S], sums[S * rows + estimate]};
  }
  double cost(int target, int estimate) const {
    return is_ratio(kind) ? energies(target, estimate).cost(kind) : sums[target * pairs.S + estimate];
  }
};

/// The permutation and the loss of one item, and the slopes of its pairs unless null. Without any allowed
/// assignment the permutation begins with -1.
double match_item(const Item& item, int64_t* permutation, Slopes* slopes) {
  const PairsOf& pairs = item.pairs;
  const int S = pairs.S;
  for (int j = 0; j < S; ++j) permutation[j] = j;
  if (slopes != nullptr) std::fill(slopes, slopes + S, Slopes{});
  std::vector<double> costs(S * S);
  int64_t existing = 0;
  double largest = 0;
  for (int j = 0; j < S; ++j) {
    if (!pairs.has(j)) continue;
    ++existing;
    for (int i = 0; i < S; ++i) {
      if (!pairs.may_pair(j, i)) continue;
      const double cost = costs[j * S + i] = item.cost(j, i);
      if (std::isnan(cost)) return std::numeric_limits<double>::quiet_NaN();
      if (!std::isinf(cost)) largest = std::max(largest, std::abs(cost));
    }
  }
  if (existing == 0) return 0;
  Assignment assignment;
  const int exponent = cost_exponent(largest);
  for (int j = 0; j < S; ++j) {
    const bool real = pairs.has(j);
    for (int i = 0; i < S; ++i) {
      const bool forbidden = real && !pairs.may_pair(j, i);
      assignment.set(j, i, forbidden ? kForbidden : round_cost(costs[j * S + i], exponent));
    }
  }
  if (!assignment.solve(S, Serial{})) {
    permutation[0] = -1;
    return std::numeric_limits<double>::quiet_NaN();
  }
  double total = 0;
  for (int j = 0; j < S; ++j) {
    const int i = assignment.match[j];
    permutation[j] = i;
    if (!pairs.has(j)) continue;
    total += costs[j * S + i];
    if (slopes != nullptr) slopes[j] = item.energies(j, i).slopes(item.kind);
  }
  return total / static_cast<double>(existing) * pit_weight(item.kind, item.N);
}

std::tuple<Tensor, Tensor, Tensor> pit_loss_cpu(const Tensor& estimates_in, const Tensor& targets_in,
                                                const std::optional<Tensor>& mask_in,
                                                const std::optional<Tensor>& allowed_in, int64_t kind_in) {
  check_pit_loss_arguments(estimates_in, targets_in, mask_in, allowed_in, kind_in);
  const PitKind kind = static_cast<PitKind>(kind_in);
  const Tensor estimates = torch::stable::contiguous(estimates_in);
  const Tensor targets = torch::stable::contiguous(targets_in);
  const std::optional<Tensor> mask = contiguous_if_given(mask_in), allowed = contiguous_if_given(allowed_in);
  const bool* exists = mask.has_value() ? mask->const_data_ptr<bool>() : nullptr;
  const bool* may_pair = allowed.has_value() ? allowed->const_data_ptr<bool>() : nullptr;
  const int64_t B = estimates.size(0), S = estimates.size(1), N = elements_from(estimates, 2);
  const int64_t pairs = pit_rows(kind, S) * pit_rows(kind, S);

  Tensor loss = torch::stable::new_empty(estimates, {B}, pit_loss_type(estimates));
  Tensor permutation = torch::stable::new_empty(estimates, {B, S}, ScalarType::Long);
  Tensor slopes = new_pit_loss_slopes(estimates, kind_in);
  if (B == 0) return {loss, permutation, slopes};

  const auto pairs_of = [&](int64_t b) {
    return PairsOf{exists ? exists + b * S : nullptr, may_pair ? may_pair + b * S * S : nullptr,
                   static_cast<int>(S)};
  };
  const int64_t chunks = (N + kChunk - 1) / kChunk;
  std::vector<double> costs(B * chunks * pairs);
  dispatch_floating(estimates.scalar_type(), "pit_loss", [&]<typename T>(TypeTag<T>) {
    parallel_for(0, B * chunks, grain_for(pairs * std::min(N, kChunk)), [&](int64_t first, int64_t last) {
      for (int64_t task = first; task < last; ++task) {
        const int64_t b = task / chunks, begin = task % chunks * kChunk, at = b * S * N + begin;
        run_vectorised<ChunkCosts<T>>(
            ChunkParams<T>{estimates.const_data_ptr<T>() + at, targets.const_data_ptr<T>() + at, pairs_of(b),
                           costs.data() + task * pairs, N, std::min(kChunk, N - begin), kind});
      }
    });
  });

  int64_t* match = permutation.mutable_data_ptr<int64_t>();
  Slopes* const of_pairs = slopes_to_write(slopes);
  dispatch_floating(loss.scalar_type(), "pit_loss", [&]<typename T>(TypeTag<T>) {
    T* value = loss.mutable_data_ptr<T>();
    parallel_for(0, B, grain_for(pairs * (S + chunks)), [&](int64_t first, int64_t last) {
      for (int64_t b = first; b < last; ++b) {
        double* sums = costs.data() + b * chunks * pairs;
        for (int64_t c = 1; c < chunks; ++c) {
          for (int64_t k = 0; k < pairs; ++k) sums[k] += sums[c * pairs + k];
        }
        const Item item{sums, pairs_of(b), N, kind};
        value[b] = static_cast<T>(match_item(item, match + b * S, of_pairs ? of_pairs + b * S : nullptr));
      }
    });
  });
  for (int64_t b = 0; b < B; ++b) {
    TASK_AWARE_CHECK(match[b * S] >= 0, "pit_loss: allowed permits no assignment for item ", b,
                     ", expected for each existing target an estimate of its own; allow more pairs, or mask "
                     "targets.");
  }
  return {loss, permutation, slopes};
}

template <typename T>
struct BackwardParams {
  const T* estimate;  // the matched row
  const T* target;
  T* grad_estimate;  // null where not wanted
  T* grad_target;
  const Slopes* slopes;  // of the pair; null but for a ratio
  int64_t length;
  double scale;
  PitKind kind;
  bool streams;
};

template <typename T>
struct BackwardRow {
  template <int kBytes>
  static TASK_AWARE_INLINE void run(const BackwardParams<T>& p) {
    switch (p.kind) {
      case PitKind::kMse:
        return of_kind<PitKind::kMse>(p);
      case PitKind::kL1:
        return of_kind<PitKind::kL1>(p);
      case PitKind::kBce:
        return of_kind<PitKind::kBce>(p);
      case PitKind::kSnr:
        return of_kind<PitKind::kSnr>(p);
      case PitKind::kSiSdr:
        return of_kind<PitKind::kSiSdr>(p);
    }
  }

  template <PitKind kKind>
  static TASK_AWARE_INLINE void of_kind(const BackwardParams<T>& p) {
    using Real = pit_sum_t<kKind, T>;
    const T *estimate = p.estimate, *target = p.target;
    const Real scale = static_cast<Real>(p.scale);
    const Slopes slopes = p.slopes ? *p.slopes : Slopes{};
    const Slope<Real> of_estimate = slopes.of_estimate<Real>(), of_target = slopes.of_target<Real>();
    if (p.grad_estimate != nullptr) {
      write_values(p.grad_estimate, p.length, p.streams, [=](int64_t n) TASK_AWARE_LAMBDA {
        return static_cast<T>(scale * estimate_derivative<kKind, Real>(estimate[n], target[n], of_estimate));
      });
    }
    if (p.grad_target != nullptr) {
      write_values(p.grad_target, p.length, p.streams, [=](int64_t n) TASK_AWARE_LAMBDA {
        return static_cast<T>(scale * target_derivative<kKind, Real>(estimate[n], target[n], of_target));
      });
    }
  }
};

std::tuple<Tensor, Tensor> pit_loss_backward_cpu(const Tensor& grad_in, const Tensor& loss_in,
                                                 const Tensor& estimates_in, const Tensor& targets_in,
                                                 const Tensor& permutation_in, const Tensor& slopes_in,
                                                 const std::optional<Tensor>& mask_in, int64_t kind_in,
                                                 bool wants_estimates, bool wants_targets) {
  check_pit_loss_arguments(estimates_in, targets_in, mask_in, std::nullopt, kind_in);
  const PitKind kind = static_cast<PitKind>(kind_in);
  const Tensor grad = torch::stable::contiguous(grad_in), loss = torch::stable::contiguous(loss_in);
  const Tensor estimates = torch::stable::contiguous(estimates_in);
  const Tensor targets = torch::stable::contiguous(targets_in);
  const Tensor permutation = torch::stable::contiguous(permutation_in);
  const Tensor slopes = torch::stable::contiguous(slopes_in);
  const std::optional<Tensor> mask = contiguous_if_given(mask_in);
  const bool* exists = mask.has_value() ? mask->const_data_ptr<bool>() : nullptr;
  const int64_t B = estimates.size(0), S = estimates.size(1), N = elements_from(estimates, 2);
  const int64_t chunks = (N + kChunk - 1) / kChunk;

  Tensor grad_estimates =
      wants_estimates ? new_output(estimates, estimates.sizes()) : torch::stable::new_empty(estimates, {0});
  Tensor grad_targets =
      wants_targets ? new_output(targets, targets.sizes()) : torch::stable::new_empty(targets, {0});
  if (B == 0) return {grad_estimates, grad_targets};

  std::vector<double> scales(B);
  dispatch_floating(loss.scalar_type(), "pit_loss", [&]<typename T>(TypeTag<T>) {
    const T *value = loss.const_data_ptr<T>(), *upstream = grad.const_data_ptr<T>();
    for (int64_t b = 0; b < B; ++b) {
      int64_t existing = S;
      if (exists != nullptr) existing = std::count(exists + b * S, exists + (b + 1) * S, true);
      scales[b] = std::isnan(value[b]) ? std::numeric_limits<double>::quiet_NaN()
                                       : upstream[b] / static_cast<double>(existing) * pit_weight(kind, N);
    }
  });
  const bool streams =
      (2 + wants_estimates + wants_targets) * estimates.numel() * estimates.element_size() > kCacheBytes;
  const int64_t* match = permutation.const_data_ptr<int64_t>();
  const Slopes* const of_pairs = slopes_to_read(slopes);
  dispatch_floating(estimates.scalar_type(), "pit_loss", [&]<typename T>(TypeTag<T>) {
    T* const to_estimates = wants_estimates ? grad_estimates.mutable_data_ptr<T>() : nullptr;
    T* const to_targets = wants_targets ? grad_targets.mutable_data_ptr<T>() : nullptr;
    parallel_for(0, B * S * chunks, grain_for(std::min(N, kChunk)), [&](int64_t first, int64_t last) {
      for (int64_t task = first; task < last; ++task) {
        const int64_t row = task / chunks, begin = task % chunks * kChunk, b = row / S;
        const int64_t length = std::min(kChunk, N - begin);
        const int64_t at_target = row * N + begin, at_estimate = (b * S + match[row]) * N + begin;
        T* to_estimate = wants_estimates ? to_estimates + at_estimate : nullptr;
        T* to_target = wants_targets ? to_targets + at_target : nullptr;
        if (exists != nullptr && !exists[row]) {
          if (wants_estimates) std::fill(to_estimate, to_estimate + length, T(0));
          if (wants_targets) std::fill(to_target, to_target + length, T(0));
          continue;
        }
        run_vectorised<BackwardRow<T>>(BackwardParams<T>{
            estimates.const_data_ptr<T>() + at_estimate, targets.const_data_ptr<T>() + at_target, to_estimate,
            to_target, of_pairs ? of_pairs + row : nullptr, length, scales[b], kind, streams});
      }
      finish_streaming();
    });
  });
  return {grad_estimates, grad_targets};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(task_aware, m) {
  m.def(
      "pit_loss(Tensor estimates, Tensor targets, Tensor? mask, Tensor? allowed, int kind) -> "
      "(Tensor, Tensor, Tensor)");
  m.def(
      "pit_loss_backward(Tensor grad, Tensor loss, Tensor estimates, Tensor targets, Tensor permutation, "
      "Tensor slopes, Tensor? mask, int kind, bool wants_estimates, bool wants_targets) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(task_aware, CPU, m) {
  m.impl("pit_loss", TORCH_BOX(&pit_loss_cpu));
  m.impl("pit_loss_backward", TORCH_BOX(&pit_loss_backward_cpu));
}

}  // namespace task_aware
