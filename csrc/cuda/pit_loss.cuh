#pragma once

// pit_loss: loss[b] = 1/(M*N) * min over permutations of sum over existing targets j and elements n of
//                     d(estimates[b, permutation[b,j], n], targets[b,j,n])
//   estimates, targets [B,S,N]; mask [B,S]: the M existing targets of each item; loss [B]
//   allowed [B,S,S]: which estimates (last) the existing targets may have; NaN where no assignment is left
//   permutation [B,S]: the lexicographically first
//   d: mse (e-t)^2 · l1 |e-t| · bce -(t*max(log e,-100) + (1-t)*max(log(1-e),-100))
// snr and si_sdr: loss[b] = 1/M * min over permutations of the sum of the pairs' negative ratios in dB,
//   10 log10((|e-at|^2 + f) / (|at|^2 + f)) with f = 2^-23; a is 1 (snr) or e.t / (|t|^2 + f) (si_sdr)
// The backward is in pit_loss_backward.cuh.
//
// Mapping, two launches without atomics, so that results repeat bit for bit:
//   pair_costs_kernel   a block = one chunk of N of one item and one tile of pairs; a thread strides through
//                       the chunk with the tile's sums in registers (float32, then float64 across threads)
//   assignment_kernel   a block = one item: adds the chunks' costs in order, then its first warp solves the
//                       assignment, of up to five sources by trying every permutation
// A ratio passes one more row of each, of zeros: the costs to them are the energies of the others.
// Traffic: 2*B*S*N elements are read (once for up to 5 rows, then from L2 once per tile of pairs).

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
constexpr unsigned int kFullWarp = 0xffffffffu;

struct ForwardParams {
  const void* estimates;
  const void* targets;
  const bool* mask;  // [B,S] or null
  void* loss;
  int64_t* permutation;
  int64_t B, N;
  int S;
  PitKind kind;
  const bool* allowed;  // [B,S,S] or null
  Slopes* slopes;       // [B,S] of a ratio, else null

  double* partial;  // the workspace: [B,chunks,R,R] of R = rows(), row = target

  __host__ __device__ int64_t chunks() const { return (N + kChunk - 1) / kChunk; }
  __host__ __device__ int rows() const { return static_cast<int>(pit_rows(kind, S)); }
  /// A tile of pairs is this wide and high: 5 where that covers the rows with no more of them than 4 does.
  int tile() const {
    if (rows() <= 2) return 2;
    return (rows() + 4) / 5 * 5 <= (rows() + 3) / 4 * 4 ? 5 : 4;
  }
  int64_t workspace() const { return B * chunks() * rows() * rows(); }
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
      return kKind == PitKind::kL1 ? fabs(difference) : difference * difference;
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
  using Real = pit_sum_t<kKind, T>;
  const auto chunks = static_cast<uint32_t>(p.chunks());
  const uint32_t item = blockIdx.x / chunks, chunk = blockIdx.x % chunks;
  const int first_estimate = blockIdx.y * kTile, first_target = blockIdx.z * kTile;
  const int estimates_here = min(kTile, p.S - first_estimate), targets_here = min(kTile, p.S - first_target);
  const int64_t estimates = (int64_t{item} * p.S + first_estimate) * p.N;
  const int64_t targets = (int64_t{item} * p.S + first_target) * p.N;
  const int64_t end = min(p.N, (int64_t{chunk} + 1) * kChunk);

  Real sums[kTile * kTile] = {};
  // All loads come before the first use; what the tile has no source for stays 0, as does a ratio's last row.
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
  const int i = threadIdx.x / kTile, row = first_target + threadIdx.x % kTile, column = first_estimate + i;
  const int rows = p.rows();
  if (i < kTile && row < rows && column < rows) {
    double sum = 0;
    for (int warp = 0; warp < kWarps; ++warp) sum += shared[warp][threadIdx.x];
    p.partial[(blockIdx.x * int64_t{rows} + row) * rows + column] = sum;
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

/// An item's sums over all chunks, in order, and what restricts its pairs.
struct Item {
  const ForwardParams& p;
  int64_t number;

  __device__ bool exists(int target) const { return p.mask == nullptr || p.mask[number * p.S + target]; }
  __device__ bool may_pair(int target, int estimate) const {
    return p.allowed == nullptr || p.allowed[(number * p.S + target) * p.S + estimate];
  }
  __device__ double sum(int target, int estimate) const {
    const int rows = p.rows();
    double sum = 0;
    for (int64_t c = 0; c < p.chunks(); ++c) {
      sum += p.partial[((number * p.chunks() + c) * rows + target) * rows + estimate];
    }
    return sum;
  }
  __device__ PairEnergies energies(int target, int estimate) const {
    return {sum(target, estimate), sum(target, p.S), sum(p.S, estimate)};
  }
  __device__ double cost(int target, int estimate) const {
    return is_ratio(p.kind) ? energies(target, estimate).cost(p.kind) : sum(target, estimate);
  }
};

template <typename Loss>
__global__ void __launch_bounds__(kAssignmentThreads, 1) assignment_kernel(ForwardParams p) {
  __shared__ double costs[kMaxSources * kMaxSources];
  __shared__ Assignment assignment;
  const Item item{p, blockIdx.x};
  const int S = p.S;
  for (int k = threadIdx.x; k < S * S; k += kAssignmentThreads) {
    const bool counts = item.exists(k / S) && item.may_pair(k / S, k % S);
    costs[k] = counts ? item.cost(k / S, k % S) : 0.0;
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
    for (int k = j; k < S * S; k += 32) {
      const bool forbidden = p.allowed != nullptr && item.exists(k / S) && !item.may_pair(k / S, k % S);
      assignment.set(k / S, k % S, forbidden ? kForbidden : round_cost(costs[k], exponent));
    }
    broken = !(S <= Assignment::kFew ? assignment.score_all(S, Warp{}) : assignment.solve(S, Warp{}));
  }
  if (j < S) {
    const int estimate = broken ? j : assignment.match[j];
    p.permutation[item.number * S + j] = estimate;
    if (p.slopes != nullptr) {
      p.slopes[item.number * S + j] =
          broken || !item.exists(j) ? Slopes{} : item.energies(j, estimate).slopes(p.kind);
    }
  }
  if (j == 0) {
    double total = 0;
    int existing = 0;
    for (int k = 0; k < S; ++k) {
      if (!item.exists(k)) continue;
      ++existing;
      if (!broken) total += costs[k * S + assignment.match[k]];
    }
    const double mean = existing == 0 ? 0.0 : total / existing * pit_weight(p.kind, p.N);
    static_cast<Loss*>(p.loss)[item.number] =
        static_cast<Loss>(broken ? std::numeric_limits<double>::quiet_NaN() : mean);
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
  constexpr PitKind kSums = kKind == PitKind::kSnr ? PitKind::kMse : kKind;
  const auto tiles = static_cast<unsigned int>((p.rows() + p.tile() - 1) / p.tile());
  const dim3 grid(exact_grid(p.B * p.chunks(), "pit_loss"), tiles, tiles);
  const auto kernel = falls_into_groups<T, kCount>(p.N, {p.estimates, p.targets})
                          ? pair_costs_kernel_of<kSums, T, kCount>(p.tile())
                          : pair_costs_kernel_of<kSums, T, 1>(p.tile());
  launch({"pair_costs_kernel", grid, kThreads, stream}, kernel, p);
  launch({"assignment_kernel", static_cast<unsigned int>(p.B), kAssignmentThreads, stream},
         assignment_kernel<accumulate_t<T>>, p);
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
    case PitKind::kSnr:
      return function.template operator()<PitKind::kSnr>();
    case PitKind::kSiSdr:
      return function.template operator()<PitKind::kSiSdr>();
  }
}

}  // namespace
}  // namespace task_aware
