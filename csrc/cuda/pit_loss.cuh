#pragma once

// pit_loss: loss[b] = 1/(M*N) * min over permutations of sum over existing targets j and elements n of
//                     d(estimates[b, permutation[b,j], n], targets[b,j,n])
//   estimates, targets [B,S,N]; mask [B,S]: the M existing targets of each item; loss [B]
//   permutation [B,S]: the lexicographically first
//   d: mse (e-t)^2 · l1 |e-t| · bce -(t*max(log e,-100) + (1-t)*max(log(1-e),-100))
//
// Mapping, forward, two launches without atomics, so that results repeat bit for bit:
//   pair_costs_kernel   a block = one chunk of N of one item and one tile of pairs; a thread strides through
//                       the chunk with the tile's sums in registers (float32, then float64 across threads)
//   assignment_kernel   a block = one item: adds the chunks' costs in order, then its first warp solves the
//                       assignment, of up to five sources by trying every permutation
// Mapping, backward: blockIdx.z is the target, blockIdx.y walks the items, blockIdx.x and the threads the N
// elements of the pair.
// Traffic: forward reads 2*B*S*N elements (once for S <= 5, then from L2 once per tile of pairs);
// backward reads them again and writes up to as many.

#include <bit>
#include <limits>

#include "common/accumulate.h"
#include "common/assignment.h"
#include "common/pit_cost.h"
#include "cuda/grid.h"
#include "cuda/launch.h"
#include "cuda/vector.cuh"

namespace task_aware {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int64_t kChunk = 4096;
constexpr int kAssignmentThreads = 128;
constexpr int kElementsPerThread = 8;
constexpr int kGroupBytes = 16;  // that a thread reads at once where addresses allow
constexpr unsigned int kFullWarp = 0xffffffffu;

struct ForwardParams {
  const void* estimates;
  const void* targets;
  const bool* mask;  // [B,S] or null
  void* loss;
  int64_t* permutation;
  int64_t B, N;
  int S;

  double* partial;  // the workspace: [B,chunks,S,S], row = target

  __host__ __device__ int64_t chunks() const { return (N + kChunk - 1) / kChunk; }
  /// A tile of pairs is this wide and high: 5 where that covers S with no more of them than 4 does.
  int tile() const {
    if (S <= 2) return 2;
    return (S + 4) / 5 * 5 <= (S + 3) / 4 * 4 ? 5 : 4;
  }
  int64_t workspace() const { return B * chunks() * S * S; }
};

template <PitKind kKind, typename Real>
struct EstimateTerms {
  Real first, second;  // the estimate itself; for bce its two logarithms

  __device__ explicit EstimateTerms(Real estimate) {
    if constexpr (kKind == PitKind::kBce) {
      first = log_clamped(static_cast<Real>(log(estimate)));
      second = log_clamped(static_cast<Real>(log1p(-estimate)));
    } else {
      first = second = estimate;
    }
  }

  __device__ Real cost(Real target) const {
    if constexpr (kKind == PitKind::kBce) {
      return -(target * first + (1 - target) * second);
    } else {
      const Real difference = first - target;
      return kKind == PitKind::kMse ? difference * difference : fabs(difference);
    }
  }
};

/// Adds each of `values` over the lanes of a warp. Step by step a lane gives half of its sums to another lane and
/// receives that one's part of the half it keeps, so that in the end it holds one: the sum of values[first], if
/// first < end, both given as 0 and kCount.
template <int kDistance, int kCount, typename Real>
__device__ __forceinline__ double warp_sums(const Real (&values)[kCount], int& first, int& end) {
  constexpr int kKept = (kCount + 1) / 2;
  const bool upper = threadIdx.x & kDistance;
  double kept[kKept];
#pragma unroll
  for (int k = 0; k < kKept; ++k) {
    const Real low = values[k], high = kKept + k < kCount ? values[kKept + k] : Real(0);
    const Real received = __shfl_xor_sync(kFullWarp, upper ? low : high, kDistance);
    kept[k] = static_cast<double>(upper ? high : low) + static_cast<double>(received);
  }
  if (upper) {
    first += kKept;
  } else {
    end = min(end, first + kKept);
  }
  if constexpr (kDistance == 1) {
    return kept[0];
  } else {
    return warp_sums<kDistance / 2>(kept, first, end);
  }
}

template <PitKind kKind, typename T, int kTile, int kCount>
__global__ void __launch_bounds__(kThreads, 2) pair_costs_kernel(ForwardParams p) {
  using Real = accumulate_t<T>;
  const auto chunks = static_cast<uint32_t>(p.chunks());
  const uint32_t item = blockIdx.x / chunks, chunk = blockIdx.x % chunks;
  const int first_estimate = blockIdx.y * kTile, first_target = blockIdx.z * kTile;
  const int estimates_here = min(kTile, p.S - first_estimate), targets_here = min(kTile, p.S - first_target);
  const int64_t estimates = (int64_t{item} * p.S + first_estimate) * p.N;
  const int64_t targets = (int64_t{item} * p.S + first_target) * p.N;
  const int64_t end = min(p.N, (int64_t{chunk} + 1) * kChunk);

  Real sums[kTile * kTile] = {};
  // All loads come before the first use; what the tile has no source for stays 0.
  Packed<T, kCount> estimate[kTile] = {}, target[kTile] = {};
  for (int64_t n = chunk * kChunk + threadIdx.x * kCount; n < end; n += kThreads * kCount) {
    int64_t at_estimate = estimates + n, at_target = targets + n;
#pragma unroll
    for (int k = 0; k < kTile; ++k) {
      if (k < estimates_here) estimate[k] = load_packed<T, kCount>(p.estimates, at_estimate);
      if (k < targets_here) target[k] = load_packed<T, kCount>(p.targets, at_target);
      at_estimate += p.N;
      at_target += p.N;
    }
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
#pragma unroll
      for (int i = 0; i < kTile; ++i) {
        if (kKind == PitKind::kBce && i >= estimates_here) break;  // spares the logarithms
        const EstimateTerms<kKind, Real> terms(
            static_cast<Real>(std::bit_cast<Vector<T, kCount>>(estimate[i]).values[k]));
#pragma unroll
        for (int j = 0; j < kTile; ++j) {
          sums[i * kTile + j] +=
              terms.cost(static_cast<Real>(std::bit_cast<Vector<T, kCount>>(target[j]).values[k]));
        }
      }
    }
  }

  __shared__ double shared[kWarps][kTile * kTile];
  int pair = 0, pairs = kTile * kTile;
  const double of_warp = warp_sums<16>(sums, pair, pairs);
  if (pair < pairs) shared[threadIdx.x / 32][pair] = of_warp;
  __syncthreads();
  const int i = threadIdx.x / kTile, j = threadIdx.x % kTile;
  if (i < estimates_here && j < targets_here) {
    double sum = 0;
    for (int warp = 0; warp < kWarps; ++warp) sum += shared[warp][threadIdx.x];
    p.partial[(blockIdx.x * int64_t{p.S} + first_target + j) * p.S + first_estimate + i] = sum;
  }
}

/// A warp as the lanes of Assignment::solve.
struct Warp {
  __device__ int lane() const { return threadIdx.x; }
  __device__ int count() const { return 32; }
  __device__ void sync() const { __syncwarp(); }
  __device__ Nearest nearest(Nearest own) const {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
      const int64_t distance = __shfl_xor_sync(kFullWarp, own.distance, offset);
      const int column = __shfl_xor_sync(kFullWarp, own.column, offset);
      const bool closer =
          distance < own.distance || (distance == own.distance && column >= 0 && column < own.column);
      if (closer) own = {distance, column};
    }
    return own;
  }
};

template <typename Loss>
__global__ void __launch_bounds__(kAssignmentThreads, 1) assignment_kernel(ForwardParams p) {
  __shared__ double costs[kMaxSources * kMaxSources];
  __shared__ Assignment assignment;
  const int64_t item = blockIdx.x;
  const int S = p.S;
  const bool* exists = p.mask == nullptr ? nullptr : p.mask + item * S;
  for (int k = threadIdx.x; k < S * S; k += kAssignmentThreads) {
    double sum = 0;
    if (exists == nullptr || exists[k / S]) {
      for (int64_t c = 0; c < p.chunks(); ++c) sum += p.partial[(item * p.chunks() + c) * S * S + k];
    }
    costs[k] = sum;
  }
  __syncthreads();
  if (threadIdx.x >= 32) return;

  double largest = 0;
  bool broken = false;
  for (int k = threadIdx.x; k < S * S; k += 32) {
    const double size = fabs(costs[k]);
    broken |= isnan(size);
    if (size > largest && !isinf(size)) largest = size;
  }
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2)
    largest = fmax(largest, __shfl_xor_sync(kFullWarp, largest, offset));
  broken = __any_sync(kFullWarp, broken);

  const int j = threadIdx.x;
  if (!broken) {
    const int exponent = cost_exponent(largest);
    for (int k = j; k < S * S; k += 32) assignment.set(k / S, k % S, round_cost(costs[k], exponent));
    if (S <= Assignment::kFew) {
      assignment.score_all(S, Warp{});
    } else {
      assignment.solve(S, Warp{});
    }
  }
  if (j < S) p.permutation[item * S + j] = broken ? j : assignment.match[j];
  if (j == 0) {
    double total = 0;
    int existing = 0;
    for (int k = 0; k < S; ++k) {
      if (exists != nullptr && !exists[k]) continue;
      ++existing;
      if (!broken) total += costs[k * S + assignment.match[k]];
    }
    const double mean =
        existing == 0 ? 0.0 : total / (static_cast<double>(existing) * static_cast<double>(p.N));
    static_cast<Loss*>(p.loss)[item] =
        static_cast<Loss>(broken ? std::numeric_limits<double>::quiet_NaN() : mean);
  }
}

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
};

template <PitKind kKind, typename T, int kCount>
__global__ void __launch_bounds__(kThreads) backward_kernel(BackwardParams p) {
  using Real = accumulate_t<T>;
  const int lane = threadIdx.x % 32, j = blockIdx.z;
  for (int64_t item = blockIdx.y; item < p.B; item += gridDim.y) {
    const int64_t row = item * p.S + j;
    const uint32_t existing =
        __ballot_sync(kFullWarp, lane < p.S && (p.mask == nullptr || p.mask[item * p.S + lane]));
    const bool exists = existing >> j & 1;
    const Real loss = static_cast<const Real*>(p.loss)[item];
    const Real mean = static_cast<const Real*>(p.grad)[item] / static_cast<Real>(__popc(existing) * p.N);
    const Real scale = isnan(loss) ? loss : mean;
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
        to_estimate.values[k] = static_cast<T>(exists ? scale * estimate_derivative<kKind>(e, t) : Real(0));
        if (p.grad_targets != nullptr) {
          to_target.values[k] = static_cast<T>(exists ? scale * target_derivative<kKind>(e, t) : Real(0));
        }
      }
      if (p.grad_estimates != nullptr) store<T, kCount>(p.grad_estimates, estimate_row + n, to_estimate);
      if (p.grad_targets != nullptr) store<T, kCount>(p.grad_targets, target_row + n, to_target);
    }
  }
}

template <PitKind kKind, typename T, int kCount>
auto pair_costs_kernel_of(int tile) {
  return tile == 2   ? pair_costs_kernel<kKind, T, 2, kCount>
         : tile == 5 ? pair_costs_kernel<kKind, T, 5, kCount>
                     : pair_costs_kernel<kKind, T, 4, kCount>;
}

template <PitKind kKind, typename T>
void launch_pit_loss(const ForwardParams& p, cudaStream_t stream) {
  constexpr int kCount = kGroupBytes / sizeof(T);
  const auto tiles = static_cast<unsigned int>((p.S + p.tile() - 1) / p.tile());
  const dim3 grid(exact_grid(p.B * p.chunks(), "pit_loss"), tiles, tiles);
  const auto kernel = falls_into_groups<T, kCount>(p.N, {p.estimates, p.targets})
                          ? pair_costs_kernel_of<kKind, T, kCount>(p.tile())
                          : pair_costs_kernel_of<kKind, T, 1>(p.tile());
  launch({"pair_costs_kernel", grid, kThreads, stream}, kernel, p);
  launch({"assignment_kernel", static_cast<unsigned int>(p.B), kAssignmentThreads, stream},
         assignment_kernel<accumulate_t<T>>, p);
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

/// function.operator()<PitKind>() of the kind that Python passed by number.
template <typename Function>
void dispatch_kind(int64_t kind, Function&& function) {
  switch (static_cast<PitKind>(kind)) {
    case PitKind::kMse:
      return function.template operator()<PitKind::kMse>();
    case PitKind::kL1:
      return function.template operator()<PitKind::kL1>();
    case PitKind::kBce:
      return function.template operator()<PitKind::kBce>();
  }
}

}  // namespace
}  // namespace task_aware
