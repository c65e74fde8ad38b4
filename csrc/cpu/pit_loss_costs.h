#pragma once

// The costs of all pairs of a chunk of one item; the formulas stand in pit_loss.cpp.
//
// They come from direct differences. Blocks of a chunk stay in L1 while all pairs pass over them, a block's
// sums are held in float32 vector registers and then added in float64 vectors, whose elements are added at the
// end of the chunk; si_sdr is summed in float64 throughout. Every pair is summed in the same order, so equal
// rows have equal costs.

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <numbers>
#include <type_traits>

#include "common/accumulate.h"
#include "common/assignment.h"
#include "common/parallel.h"
#include "common/pit_cost.h"
#include "cpu/fast_math.h"
#include "cpu/vectors.h"

namespace task_aware {

constexpr int64_t kStepsPerFlush = 32;  // vectors added in float32 before a flush to float64
constexpr int kTile = 5;  // targets that pass a group of estimates, whose sums stay in registers

/// Estimates of such a group, by the bytes of a vector: AVX-512 has 32 registers, the others 16.
template <size_t kBytes>
inline constexpr int kMostEstimates = kBytes == 64 ? 5 : 2;

/// Which pairs of an item count; both pointers may be null.
struct PairsOf {
  const bool* exists;   // [S]
  const bool* allowed;  // [S,S], row = target
  int S;

  bool has(int target) const { return exists == nullptr || exists[target]; }
  bool may_pair(int target, int estimate) const {
    return allowed == nullptr || allowed[target * S + estimate];
  }
  /// The targets whose pair with an estimate a kind needs, one bit each; row S of both are the zeros of a ratio.
  uint64_t targets_of(int estimate, PitKind kind) const {
    uint64_t targets = kind == PitKind::kSiSdr && estimate < S ? uint64_t{1} << S : 0;
    for (int j = 0; j < S; ++j) {
      targets |= uint64_t{has(j) && (estimate == S || may_pair(j, estimate))} << j;
    }
    return targets;
  }
};

template <typename T>
struct ChunkParams {
  const T* estimates;  // row 0 of the item, at the chunk's first element
  const T* targets;
  PairsOf pairs;
  double* costs;   // [R,R] of R = pit_rows(kind, S), row = target
  int64_t N;       // elements between rows
  int64_t length;  // elements in the chunk
  PitKind kind;
};

/// max(log e, -100) of a probability; NaN below 0.
template <typename V>
TASK_AWARE_INLINE V log_of(V e) {
  using Real = scalar_t<V>;
  constexpr Real kNormal = std::numeric_limits<Real>::min(), kShift = 1 << 24;
  const V lifted = e < kNormal ? e * kShift : e;  // fast_log wants normal numbers
  V result = fast_log(lifted);
  result = e < kNormal ? result - static_cast<Real>(24 * std::numbers::ln2) : result;
  result = e > 0 ? result : (e == 0 ? V{} - 100 : V{} + std::numeric_limits<Real>::quiet_NaN());
  return result < -100 ? V{} - 100 : result;
}

/// max(log(1 - e), -100), accurate also for small e.
template <typename V>
TASK_AWARE_INLINE V log_of_rest(V e) {
  const V rest = 1 - e, error = (1 - rest) - e;  // 1 - e = rest + error, exactly
  const V correction = rest > 0 ? error / rest : V{};
  return log_of(rest) + correction;
}

/// Rows of estimates and of targets that pass each other. For bce an estimate is given as its two logarithms,
/// `first` = log e and `second` = log(1-e).
template <typename E, typename T>
struct Rows {
  const E* first[kTile];
  const E* second[kTile];
  const T* target[kTile];
  int estimate_row[kTile];  // rows and columns of the sums
  int target_row[kTile];
};

// Sums of d over `steps` vectors for every pair of a tile; `sums` are float64 [estimate, target], `stride` a row.
template <PitKind kKind, typename E, typename T, int kWidth, int kEstimates, int kTargets>
TASK_AWARE_INLINE void add_tile(const Rows<E, T>& rows, int64_t steps, vector_t<double, kWidth>* sums,
                                int64_t stride) {
  using V = vector_t<pit_sum_t<kKind, T>, kWidth>;
  V held[kEstimates][kTargets] = {};
  for (int64_t step = 0; step < steps; ++step) {
    V t[kTargets];
    for (int j = 0; j < kTargets; ++j)
      t[j] = __builtin_convertvector((load<T, kWidth>(rows.target[j] + step * kWidth)), V);
    for (int i = 0; i < kEstimates; ++i) {
      const V e = __builtin_convertvector((load<E, kWidth>(rows.first[i] + step * kWidth)), V);
      for (int j = 0; j < kTargets; ++j) {
        if constexpr (kKind == PitKind::kBce) {
          const V l = load<E, kWidth>(rows.second[i] + step * kWidth);
          held[i][j] -= t[j] * e + (1 - t[j]) * l;
        } else {
          const auto difference = e - t[j];
          if constexpr (kKind == PitKind::kL1) {
            held[i][j] += absolute(difference);
          } else {
            held[i][j] += difference * difference;
          }
        }
      }
    }
  }
  for (int i = 0; i < kEstimates; ++i) {
    for (int j = 0; j < kTargets; ++j) {
      sums[rows.estimate_row[i] * stride + rows.target_row[j]] +=
          __builtin_convertvector(held[i][j], vector_t<double, kWidth>);
    }
  }
}

/// add_tile with the tile's sizes as constants.
template <PitKind kKind, typename E, typename T, int kWidth, int kEstimates = 1, int kTargets = 1>
TASK_AWARE_INLINE void add_tile_of(int estimates, int targets, const Rows<E, T>& rows, int64_t steps,
                                   vector_t<double, kWidth>* sums, int64_t stride) {
  if (kEstimates < estimates) {
    if constexpr (kEstimates < kMostEstimates<kWidth * sizeof(pit_sum_t<kKind, T>)>) {
      add_tile_of<kKind, E, T, kWidth, kEstimates + 1, kTargets>(estimates, targets, rows, steps, sums,
                                                                 stride);
    }
  } else if (kTargets < targets) {
    if constexpr (kTargets < kTile) {
      add_tile_of<kKind, E, T, kWidth, kEstimates, kTargets + 1>(estimates, targets, rows, steps, sums,
                                                                 stride);
    }
  } else {
    add_tile<kKind, E, T, kWidth, kEstimates, kTargets>(rows, steps, sums, stride);
  }
}

/// The size of the groups that `count` rows fall into, as equal as they can be and none above `most`.
inline int group_size(int count, int most) {
  const int groups = (count + most - 1) / most;
  return groups == 0 ? 1 : (count + groups - 1) / groups;
}

template <PitKind kKind, typename T, int kBytes>
TASK_AWARE_INLINE void chunk_costs(const ChunkParams<T>& p) {
  using Real = pit_sum_t<kKind, T>;
  using E = std::conditional_t<kKind == PitKind::kBce, Real, T>;
  constexpr int kWidth = kBytes / sizeof(Real);
  constexpr int64_t kBlock = kWidth * kStepsPerFlush;
  using Wide = vector_t<double, kWidth>;
  const int S = p.pairs.S, rows = static_cast<int>(pit_rows(p.kind, S));
  int estimates[kMaxSources + 1], n_estimates = 0;  // those of a pair that counts
  uint64_t targets_of[kMaxSources + 1];
  for (int i = 0; i < rows; ++i) {
    targets_of[n_estimates] = p.pairs.targets_of(i, p.kind);
    if (targets_of[n_estimates] != 0) estimates[n_estimates++] = i;
  }
  const T zeros[kBlock] = {};  // row S of both
  const auto block_of = [&](const T* first, int row, int64_t begin) {
    return row == S ? zeros : first + row * p.N + begin;
  };
  const int estimate_group = group_size(n_estimates, kMostEstimates<kBytes>);
  Wide sums[(kMaxSources + 1) * (kMaxSources + 1)];  // [estimate, target], added across at the end
  std::fill(sums, sums + rows * rows, Wide{});

  // The last, incomplete vector is padded: to e = t for differences, to log e = log(1-e) = 0 for bce.
  E padded_first[kTile][kWidth], padded_second[kTile][kWidth];
  T padded_target[kTile][kWidth];
  alignas(64) Real logarithms[2][kKind == PitKind::kBce ? kTile : 1][kBlock];
  for (int64_t begin = 0; begin < p.length; begin += kBlock) {
    const int64_t length = std::min(kBlock, p.length - begin);
    const int64_t steps = length / kWidth, rest = length % kWidth;
    const int64_t steps_of[] = {steps, rest > 0 ? 1 : 0};  // of whole vectors and of the padded one
    const auto pad = [&](const auto* row, auto* padded) {
      std::fill(padded, padded + kWidth, 0);
      std::copy(row + steps * kWidth, row + length, padded);
      return padded;
    };
    for (int i = 0; i < n_estimates; i += estimate_group) {
      const int estimates_here = std::min(estimate_group, n_estimates - i);
      Rows<E, T> parts[2];
      auto& [whole, last] = parts;
      uint64_t wanted = 0;
      for (int k = 0; k < estimates_here; ++k) wanted |= targets_of[i + k];
      for (int k = 0; k < estimates_here; ++k) {
        whole.estimate_row[k] = last.estimate_row[k] = estimates[i + k];
        const T* row = block_of(p.estimates, estimates[i + k], begin);
        if constexpr (kKind == PitKind::kBce) {
          for_vectors<kWidth>(length, [&](int64_t n, int count) TASK_AWARE_LAMBDA {
            const auto e = load<T, kWidth>(row + n, count);
            store(logarithms[0][k] + n, log_of(e), count);
            store(logarithms[1][k] + n, log_of_rest(e), count);
          });
          whole.first[k] = logarithms[0][k], whole.second[k] = logarithms[1][k];
        } else {
          whole.first[k] = whole.second[k] = row;
        }
        if (rest > 0) {
          last.first[k] = pad(whole.first[k], padded_first[k]);
          last.second[k] = pad(whole.second[k], padded_second[k]);
        }
      }
      const int target_group = group_size(std::popcount(wanted), kTile);
      while (wanted != 0) {
        int targets_here = 0;
        for (; targets_here < target_group && wanted != 0; ++targets_here, wanted &= wanted - 1) {
          const int j = std::countr_zero(wanted);
          whole.target_row[targets_here] = last.target_row[targets_here] = j;
          whole.target[targets_here] = block_of(p.targets, j, begin);
          if (rest > 0) {
            last.target[targets_here] = pad(whole.target[targets_here], padded_target[targets_here]);
          }
        }
        for (int part = 0; part < 2; ++part) {  // one call: each size of a tile takes its time to compile
          if (steps_of[part] == 0) continue;
          add_tile_of<kKind, E, T, kWidth>(estimates_here, targets_here, parts[part], steps_of[part], sums,
                                           rows);
        }
      }
    }
  }

  for (int j = 0; j < rows; ++j) {
    for (int i = 0; i < rows; ++i) {
      double total = 0;
      for (int lane = 0; lane < kWidth; ++lane) total += sums[i * rows + j][lane];
      p.costs[j * rows + i] = total;
    }
  }
}

template <typename T>
struct ChunkCosts {
  template <int kBytes>
  static TASK_AWARE_INLINE void run(const ChunkParams<T>& p) {
    switch (p.kind) {
      case PitKind::kMse:
      case PitKind::kSnr:
        return chunk_costs<PitKind::kMse, T, kBytes>(p);
      case PitKind::kL1:
        return chunk_costs<PitKind::kL1, T, kBytes>(p);
      case PitKind::kBce:
        return chunk_costs<PitKind::kBce, T, kBytes>(p);
      case PitKind::kSiSdr:
        return chunk_costs<PitKind::kSiSdr, T, kBytes>(p);
    }
  }
};

}  // namespace task_aware
