#pragma once

// gru_scan's products of its weight with vectors that a block of threads has in shared memory: four threads a
// unit.
//
// In float32, up to 128 units (kWidth) the block keeps the weight in its registers, 96 numbers a thread with
// 512 threads; else (kWidth 0) it passes over units in 64s and reads the weight from the L2 cache, in the
// order in which gru_pack_kernel left it. Neighbouring lanes read neighbouring 16 bytes of a vector, multiply
// them by their parts of some units' rows, and add up by shuffles, each in the end a part of the sums.

#include <cstdint>

#include "cuda/grid.h"
#include "cuda/launch.h"
#include "cuda/vector.cuh"

namespace task_aware {
namespace {

constexpr int kWidthStep = 64;  // widths are multiples of it
constexpr int kThreadsOfUnit = 4;

template <int kWidth>
constexpr int kThreads = kThreadsOfUnit * (kWidth > 0 ? kWidth : kWidthStep);
template <int kWidth>
constexpr int kUnitsOfPass = kThreads<kWidth> / kThreadsOfUnit;
template <typename A>
constexpr int kPerRead = kGroupBytes / sizeof(A);

/// How the threads of a block share a product: kLanes of them have the rows of kUnits units, kSums for each.
template <bool kOfColumns>
struct Share {
  static constexpr bool kColumns = kOfColumns;
  static constexpr int kLanes = kColumns ? 16 : 8;
  static constexpr int kUnits = kLanes / kThreadsOfUnit;
  static constexpr int kSums = kColumns ? 1 : 3;
  static constexpr int kRows = kUnits * kSums;
  static constexpr int kInputs = kColumns ? 3 : 1;  // of a product, in widths
};

/// What a thread does after a product: one item and unit, or, where there are more lanes, those of its
/// neighbours too.
template <typename S, int kItems>
struct Place {
  static constexpr int kPairs = kItems * S::kUnits, kShared = S::kLanes / kPairs;
  static_assert(kShared > 0);
  int item, unit;
  bool first;  // of those with the same

  __device__ Place() {
    const int thread = static_cast<int>(threadIdx.x), pair = thread % S::kLanes / kShared;
    item = pair / S::kUnits;
    unit = thread / S::kLanes * S::kUnits + pair % S::kUnits;
    first = thread % kShared == 0;
  }
};

/// A thread's part of the weight, in registers or, for kWidth 0, where gru_pack_kernel left it.
template <typename S, int kWidth, typename A>
struct Weights {
  using Values = Vector<A, kPerRead<A>>;
  static constexpr int kThreads = task_aware::kThreads<kWidth>, kStep = S::kLanes * kPerRead<A>;
  static constexpr int kSteps = kWidth * S::kInputs / kStep;

  const void* packed;
  int steps;
  Values held[kWidth > 0 ? kSteps : 1][S::kRows];

  __device__ Weights(const void* all, int d, int width) {
    steps = width * S::kInputs / kStep;
    const int64_t of_direction = int64_t{width / kUnitsOfPass<kWidth>} * steps * S::kRows * kThreads;
    packed = static_cast<const Values*>(all) + d * of_direction + threadIdx.x;
    if constexpr (kWidth > 0) {
#pragma unroll
      for (int i = 0; i < kSteps; ++i) {
#pragma unroll
        for (int row = 0; row < S::kRows; ++row) held[i][row] = read(0, i, row);
      }
    }
  }
  __device__ Values read(int pass, int i, int row) const {
    const int64_t index = ((int64_t{pass / kUnitsOfPass<kWidth>} * steps + i) * S::kRows + row) * kThreads;
    return load<A, kPerRead<A>>(packed, index * kPerRead<A>);
  }
  __device__ Values operator()(int pass, int i, int row) const {
    if constexpr (kWidth > 0) return held[i][row];
    return read(pass, i, row);
  }
};

/// Adds up values[kPairs][kSums] of lanes 2 kOffset apart and less. In values[0] remains the lane's pair.
template <int kPairs, int kSums, int kOffset, typename A>
__device__ __forceinline__ void add_up(A (*values)[kSums]) {
  if constexpr (kOffset > 0) {
    constexpr int kHalf = kPairs > 1 ? kPairs / 2 : 1;
    const bool upper = (threadIdx.x & kOffset) != 0;
#pragma unroll
    for (int k = 0; k < kHalf; ++k) {
#pragma unroll
      for (int s = 0; s < kSums; ++s) {
        A& low = values[k][s];
        const A high = values[kPairs > 1 ? kHalf + k : k][s];
        const A mine = upper ? high : low;
        low = mine + __shfl_xor_sync(0xffffffffu, upper ? low : high, kOffset);
      }
    }
    add_up<kHalf, kSums, kOffset / 2>(values);
  }
}

/// The products of the rows of place's unit with its item's x [inputs of a product]; kItems rows of x lie
/// side by side.
template <typename S, int kItems, int kWidth, typename A>
__device__ __forceinline__ void multiply(const Weights<S, kWidth, A>& weights, int pass, const A* x,
                                         int width, A (&result)[S::kSums]) {
  using Held = Weights<S, kWidth, A>;
  A sums[kItems * S::kUnits][S::kSums] = {};
  const A* const part = x + threadIdx.x % S::kLanes * kPerRead<A>;
  const int steps = kWidth > 0 ? Held::kSteps : weights.steps;
#pragma unroll(kWidth > 0 ? Held::kSteps : 1)
  for (int i = 0; i < steps; ++i) {
    typename Held::Values values[kItems];
#pragma unroll
    for (int item = 0; item < kItems; ++item) {
      values[item] = load<A, kPerRead<A>>(part, item * S::kInputs * width + i * Held::kStep);
    }
#pragma unroll
    for (int row = 0; row < S::kRows; ++row) {
      const auto weight = weights(pass, i, row);
#pragma unroll
      for (int item = 0; item < kItems; ++item) {
        A& sum = sums[item * S::kUnits + row / S::kSums][row % S::kSums];
#pragma unroll
        for (int k = 0; k < kPerRead<A>; ++k) sum += weight.values[k] * values[item].values[k];
      }
    }
  }
  add_up<kItems * S::kUnits, S::kSums, S::kLanes / 2>(sums);
#pragma unroll
  for (int s = 0; s < S::kSums; ++s) result[s] = sums[0][s];
}

/// Direction blockIdx.y of weight [D,3H,H] in the order in which Weights reads it, zeros beyond H.
template <typename S, int kWidth, typename A>
__global__ void gru_pack_kernel(const A* weight, int H, int width, void* packed) {
  using Held = Weights<S, kWidth, A>;
  const int steps = width * S::kInputs / Held::kStep;
  const int count = width / kUnitsOfPass<kWidth> * steps * S::kRows * Held::kThreads;
  const int index = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x), d = static_cast<int>(blockIdx.y);
  if (index >= count) return;
  const int thread = index % Held::kThreads, row = index / Held::kThreads % S::kRows;
  const int i = index / Held::kThreads / S::kRows % steps, pass = index / Held::kThreads / S::kRows / steps;
  const int unit = pass * kUnitsOfPass<kWidth> + thread / S::kLanes * S::kUnits + row / S::kSums;
  const int first = i * Held::kStep + thread % S::kLanes * kPerRead<A>;
  typename Held::Values values;
#pragma unroll
  for (int k = 0; k < kPerRead<A>; ++k) {
    const int gate = S::kColumns ? (first + k) / width : row % S::kSums;
    const int other = (first + k) % width;
    const int of_gate = S::kColumns ? other : unit, of_state = S::kColumns ? unit : other;
    const bool exists = of_gate < H && of_state < H;
    values.values[k] = exists ? weight[(int64_t{d * 3 + gate} * H + of_gate) * H + of_state] : A(0);
  }
  store<A, kPerRead<A>>(packed, (int64_t{d} * count + index) * kPerRead<A>, values);
}

/// H, filled up with units whose weights are zeros.
inline int gru_width(int64_t H) { return static_cast<int>((H + kWidthStep - 1) / kWidthStep * kWidthStep); }

/// run<kWidth, kItems>() for a width.
template <typename A, typename Run>
auto with_width(int width, Run run) {
  if constexpr (sizeof(A) == sizeof(float)) {
    if (width == 64) return run.template operator()<64, 1>();
    if (width == 128) return run.template operator()<128, 1>();
  }
  return run.template operator()<0, 4>();
}

template <typename S, int kWidth, typename A>
void launch_gru_pack(const A* weight, int D, int H, int width, void* packed, cudaStream_t stream) {
  constexpr int kPackThreads = 256;
  const int64_t reads = int64_t{3} * width * width / kPerRead<A>;
  const dim3 grid = exact_grid((reads + kPackThreads - 1) / kPackThreads, D, "gru_scan");
  launch({"gru_pack_kernel", grid, kPackThreads, stream}, gru_pack_kernel<S, kWidth, A>, weight, H, width,
         packed);
}

}  // namespace
}  // namespace task_aware
