#pragma once

// The assignment of estimates to targets with the least total cost, exact for S up to 32, on the CPU and on
// the GPU.
//
//   costs [S,S] float64: row = target j, column = estimate i      result: match[j] = the estimate of target j
//
// Costs are first rounded to integers of at most 2^47, so that totals are exact and ties are ties whatever
// the order of the additions. An infinite cost becomes 2^53, more than any sum of 32 finite ones: such pairs
// are avoided first. A pair that costs kForbidden is never chosen, even if that leaves no assignment.
// Shortest augmenting paths (Jonker-Volgenant, O(S^3)) then give the optimum and its dual variables; the
// optimal matchings are exactly the perfect matchings among the tight pairs, cost = dual of row + dual of
// column, and a walk through those finds the lexicographically first. Where a warp shares the work and S <= 5,
// trying every permutation comes to the same in a fraction of the steps.
//
// `Lanes` shares the work over columns: Serial on the CPU, a warp on the GPU (where Assignment lies in shared
// memory).

#include <cmath>
#include <cstdint>

#include "common/host_device.h"

namespace task_aware {

using std::isinf;

constexpr int kMaxSources = 32;

struct Nearest {
  int64_t distance;
  int column;
};

struct Serial {
  TASK_AWARE_HOST_DEVICE int lane() const { return 0; }
  TASK_AWARE_HOST_DEVICE int count() const { return 1; }
  TASK_AWARE_HOST_DEVICE void sync() const {}
  TASK_AWARE_HOST_DEVICE Nearest nearest(Nearest own) const { return own; }
};

/// The cost of a pair that must not be chosen, and the distance of what no path has reached.
constexpr int64_t kForbidden = INT64_MAX;

class Assignment {
 public:
  /// Sets one cost, rounded by `round_cost`, or kForbidden. Any lane may: `solve` has a barrier before it reads.
  TASK_AWARE_HOST_DEVICE void set(int target, int estimate, int64_t cost) { cost_[target][estimate] = cost; }

  /// After the call (all lanes take part) `match` holds the result, if it returns true: there is one.
  template <typename Lanes>
  TASK_AWARE_HOST_DEVICE bool solve(int S, const Lanes& lanes) {
    for (int k = lanes.lane(); k < S; k += lanes.count()) {
      row_dual_[k] = 0;
      column_dual_[k] = 0;
      owner_[k] = -1;
    }
    for (int row = 0; row < S; ++row) {
      if (!augment(row, S, lanes)) return false;  // begins and ends with a barrier
    }
    for (int k = lanes.lane(); k < S; k += lanes.count()) match[owner_[k]] = k;
    for (int row = lanes.lane(); row < S; row += lanes.count()) {
      uint32_t tight = 0;
      for (int column = 0; column < S; ++column) {
        tight |= uint32_t{cost_[row][column] == row_dual_[row] + column_dual_[column]} << column;
      }
      tight_[row] = tight;
    }
    lanes.sync();
    if (lanes.lane() == 0) make_lexicographically_first(S);
    lanes.sync();
    return true;
  }

  /// As `solve`, for S <= kFew: each lane tries its part of the permutations, in lexicographic order.
  template <typename Lanes>
  TASK_AWARE_HOST_DEVICE bool score_all(int S, const Lanes& lanes) {
    int permutations = 1;
    for (int k = 2; k <= S; ++k) permutations *= k;
    lanes.sync();
    Nearest best{kForbidden, -1};
    int order[kFew];
    for (int rank = lanes.lane(); rank < permutations; rank += lanes.count()) {
      make_permutation(rank, S, order);
      int64_t total = 0;
      for (int k = 0; k < kFew; ++k) {
        if (k >= S || total == kForbidden) continue;
        const int64_t cost = cost_[S - 1 - k][order[k]];
        total = cost == kForbidden ? kForbidden : total + cost;
      }
      if (total < best.distance) best = {total, rank};
    }
    best = lanes.nearest(best);
    if (best.column < 0) return false;
    make_permutation(best.column, S, order);
    for (int k = 0; k < kFew; ++k) {
      if (k < S && lanes.lane() == 0) match[S - 1 - k] = order[k];
    }
    lanes.sync();
    return true;
  }

  static constexpr int kFew = 5;
  int match[kMaxSources];

 private:
  // order[k] = the estimate of target S-1-k in the permutation of this lexicographic rank, for k < S.
  TASK_AWARE_HOST_DEVICE static void make_permutation(int rank, int S, int (&order)[kFew]) {
    for (int k = 0; k < kFew; ++k) {
      if (k >= S) break;
      const int place = rank % (k + 1);  // among the estimates of this target and those after it
      rank /= k + 1;
      for (int after = 0; after < k; ++after) order[after] += order[after] >= place;
      order[k] = place;
    }
  }

  // Shortest path in reduced costs from the free `row` to a free column, then one more row is matched. False if
  // forbidden pairs leave no path.
  template <typename Lanes>
  TASK_AWARE_HOST_DEVICE bool augment(int row, int S, const Lanes& lanes) {
    for (int k = lanes.lane(); k < S; k += lanes.count()) {
      distance_[k] = kForbidden;
      done_[k] = false;
    }
    lanes.sync();
    int current_row = row, previous = -1, column = -1;
    while (true) {
      Nearest best{kForbidden, -1};
      for (int k = lanes.lane(); k < S; k += lanes.count()) {
        if (done_[k]) continue;
        if (cost_[current_row][k] != kForbidden) {
          const int64_t through = cost_[current_row][k] - row_dual_[current_row] - column_dual_[k];
          if (through < distance_[k]) {
            distance_[k] = through;
            previous_[k] = previous;
          }
        }
        if (distance_[k] < best.distance) best = {distance_[k], k};
      }
      best = lanes.nearest(best);
      lanes.sync();
      if (best.column < 0) return false;
      for (int k = lanes.lane(); k < S; k += lanes.count()) {
        if (done_[k]) {
          row_dual_[owner_[k]] += best.distance;
          column_dual_[k] -= best.distance;
        } else if (distance_[k] != kForbidden) {
          distance_[k] -= best.distance;
        }
        if (k == best.column) done_[k] = true;
      }
      if (lanes.lane() == 0) row_dual_[row] += best.distance;
      // No barrier: of what the lanes have just changed none reads another's before the next one.
      column = previous = best.column;
      current_row = owner_[column];
      if (current_row < 0) break;
    }
    lanes.sync();
    if (lanes.lane() == 0) {
      while (column >= 0) {
        const int from = previous_[column];
        owner_[column] = from < 0 ? row : owner_[from];
        column = from;
      }
    }
    lanes.sync();
    return true;
  }

  // For each target in turn: the lowest estimate that it can take among tight pairs while the targets before
  // it keep theirs. `reach` holds the estimates whose owners can move on, over tight pairs, until the one
  // given up is taken.
  TASK_AWARE_HOST_DEVICE void make_lexicographically_first(int S) {
    for (int row = 0; row < S; ++row) {
      const int given_up = match[row];
      if ((tight_[row] & ((uint32_t{1} << given_up) - 1)) == 0) continue;
      uint32_t reach = uint32_t{1} << given_up;
      for (bool grown = true; grown;) {
        grown = false;
        for (int k = row + 1; k < S; ++k) {
          const uint32_t own = uint32_t{1} << match[k];
          const uint32_t open = tight_[k] & reach;
          if ((reach & own) == 0 && open != 0) {
            next_[k] = lowest(open);
            reach |= own;
            grown = true;
          }
        }
      }
      int mover = row, taken = lowest(tight_[row] & reach);
      while (true) {
        const int displaced = owner_[taken];
        match[mover] = taken;
        owner_[taken] = mover;
        if (taken == given_up) break;
        mover = displaced;
        taken = next_[mover];
      }
    }
  }

  TASK_AWARE_HOST_DEVICE static int lowest(uint32_t bits) {
    int position = 0;
    while ((bits >> position & 1) == 0) ++position;
    return position;
  }

  int64_t cost_[kMaxSources][kMaxSources];
  int64_t row_dual_[kMaxSources];
  int64_t column_dual_[kMaxSources];
  int64_t distance_[kMaxSources];
  uint32_t tight_[kMaxSources];
  int owner_[kMaxSources];
  int previous_[kMaxSources];
  int next_[kMaxSources];
  bool done_[kMaxSources];
};

/// The power of two that takes an item's largest finite |cost| to at most 2^47.
TASK_AWARE_HOST_DEVICE inline int cost_exponent(double largest_finite) {
  if (!(largest_finite > 0)) return 0;
  int exponent;
  frexp(largest_finite, &exponent);
  return 47 - exponent;
}

TASK_AWARE_HOST_DEVICE inline int64_t round_cost(double cost, int exponent) {
  constexpr double kInfinite = 9007199254740992.0;  // 2^53
  if (isinf(cost)) return static_cast<int64_t>(cost > 0 ? kInfinite : -kInfinite);
  return static_cast<int64_t>(rint(ldexp(cost, exponent)));
}

}  // namespace task_aware
