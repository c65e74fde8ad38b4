#pragma once

// The gradients of pit_loss.cuh: those of the chosen pairs, scaled by the item's upstream gradient; of a ratio
// from the slopes that the forward left.
//
// Mapping: blockIdx.z is the target, blockIdx.y walks the items, blockIdx.x and the threads the N elements of
// the pair.
// Traffic: reads the 2*B*S*N elements and writes up to as many.

#include "common/accumulate.h"
#include "common/pit_cost.h"
#include "cuda/grid.h"
#include "cuda/launch.h"
#include "cuda/pit_loss.cuh"
#include "cuda/vector.cuh"

namespace task_aware {
namespace {

constexpr int kElementsPerThread = 8;

struct BackwardParams {
  const void* grad;
  const void* loss;
  const void* estimates;
  const void* targets;
  const int64_t* permutation;
  const bool* mask;      // [B,S] or null
  void* grad_estimates;  // null where not wanted
  void* grad_targets;
  int64_t B, N;
  int S;
  const Slopes* slopes;  // [B,S] of a ratio, else null
};

template <PitKind kKind, typename T, int kCount>
__global__ void __launch_bounds__(kThreads) backward_kernel(BackwardParams p) {
  using Real = pit_sum_t<kKind, T>;  // of which loss and grad are, or narrower
  using Loss = accumulate_t<T>;
  const int lane = threadIdx.x % 32, j = blockIdx.z;
  for (int64_t item = blockIdx.y; item < p.B; item += gridDim.y) {
    const int64_t row = item * p.S + j;
    const uint32_t existing =
        __ballot_sync(kFullWarp, lane < p.S && (p.mask == nullptr || p.mask[item * p.S + lane]));
    const bool exists = existing >> j & 1;
    const Loss loss = static_cast<const Loss*>(p.loss)[item];
    const Loss count = static_cast<Loss>(is_ratio(kKind) ? __popc(existing) : __popc(existing) * p.N);
    const Real scale = static_cast<Real>(isnan(loss) ? loss : static_cast<const Loss*>(p.grad)[item] / count);
    const Slopes slopes = is_ratio(kKind) ? p.slopes[row] : Slopes{};
    const Slope<Real> of_estimate = slopes.of_estimate<Real>(), of_target = slopes.of_target<Real>();
    const int64_t estimate_row = (item * p.S + p.permutation[row]) * p.N, target_row = row * p.N;
    const int64_t first = (blockIdx.x * int64_t{kThreads} + threadIdx.x) * kCount;
    for (int64_t n = first; n < p.N; n += int64_t{kThreads} * kCount * gridDim.x) {
      Vector<T, kCount> to_estimate, to_target, estimate{}, target{};
      if (exists) {
        estimate = load<T, kCount>(p.estimates, estimate_row + n);
        target = load<T, kCount>(p.targets, target_row + n);
      }
#pragma unroll
      for (int k = 0; k < kCount; ++k) {
        const Real e = static_cast<Real>(estimate.values[k]), t = static_cast<Real>(target.values[k]);
        to_estimate.values[k] =
            static_cast<T>(exists ? scale * estimate_derivative<kKind>(e, t, of_estimate) : Real(0));
        if (p.grad_targets != nullptr) {
          to_target.values[k] =
              static_cast<T>(exists ? scale * target_derivative<kKind>(e, t, of_target) : Real(0));
        }
      }
      if (p.grad_estimates != nullptr) store<T, kCount>(p.grad_estimates, estimate_row + n, to_estimate);
      if (p.grad_targets != nullptr) store<T, kCount>(p.grad_targets, target_row + n, to_target);
    }
  }
}

template <PitKind kKind, typename T>
void launch_pit_loss_backward(const BackwardParams& p, cudaStream_t stream) {
  constexpr int kCount = kGroupBytes / sizeof(T);
  const dim3 grid(block_count(p.N, kThreads * kElementsPerThread),
                  static_cast<unsigned int>(std::min(p.B, kMaxGridY)), static_cast<unsigned int>(p.S));
  const auto kernel =
      falls_into_groups<T, kCount>(p.N, {p.estimates, p.targets, p.grad_estimates, p.grad_targets})
          ? backward_kernel<kKind, T, kCount>
          : backward_kernel<kKind, T, 1>;
  launch({"backward_kernel", grid, kThreads, stream}, kernel, p);
}

}  // namespace
}  // namespace task_aware
