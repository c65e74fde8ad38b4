#pragma once

// What the forward and the backward of mel_mask share: their parameters, an element under its mask, which both find
// bit for bit, and the groups of elements that a thread reads at once. Formulas: mel_mask.cuh.

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numbers>

#include "common/accumulate.h"
#include "common/check.h"
#include "cuda/approximate.cuh"
#include "cuda/grid.h"
#include "cuda/vector.cuh"

namespace task_aware {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int64_t kChunkElements = 4096;
constexpr int64_t kMaxChunks = 64;
constexpr double kDecibelsPerNeper = 20.0 / std::numbers::ln10;
constexpr double kDecibelsPerOctave = kDecibelsPerNeper * std::numbers::ln2;

/// A divisor known to the host, from 1 to 2^31 - 1, of numbers below 2^31: one product in place of the division.
struct Divisor {
  uint32_t value = 1, factor = 0, shift = 0;

  Divisor() = default;
  explicit Divisor(int64_t divisor)
      : value(static_cast<uint32_t>(divisor)),
        shift(static_cast<uint32_t>(std::bit_width(static_cast<uint64_t>(divisor - 1)))) {
    factor = static_cast<uint32_t>(((uint64_t{1} << (31 + shift)) + value - 1) / value);
  }
  __device__ __forceinline__ uint32_t quotient(uint32_t number) const {
    return __umulhi(2 * number, factor) >> shift;
  }
};

/// What a warp saw in one step through a row.
template <typename A>
struct alignas(2 * sizeof(A)) Statistics {
  A held;  // gradient held at the threshold
  A ties;  // number of elements at the maximum
};

template <typename A>
struct MaskParams {
  const void* logits;
  const void* mel;
  const A* mean;
  const A* std;
  int64_t B, S, F, frames;
  A floor, amin, ratio;     // ratio = 10^(-top_db / 20)
  const void* grad_masked;  // these two may be absent
  const void* grad_features;
  A* maximum;        // [B*S]
  void* out_masked;  // the outputs, or the gradients of logits and mel
  void* out_other;   // null where the gradient of mel is not wanted

  /// Bytes of logits that an L2 cache keeps beside what is written.
  int64_t cache_bytes = int64_t{24} << 20;
  /// Blocks that take steps again, about two on each multiprocessor of a large GPU.
  int64_t tied_blocks = 256;

  // set by the launching functions
  int64_t first_row;        // of the (b,s) rows, for this launch of the forward
  uint32_t row_elements;    // F*T, below 2^31
  uint32_t chunk_elements;  // forward
  uint32_t steps;           // backward: blocks that each take one step of all their threads through a row
  Divisor by_sources, by_frames;
  Divisor by_blocks;  // that share a row: chunks of the forward, steps of the backward, or those for ties
  A* maxima;          // workspace [B*S,chunks]
  Statistics<A>* statistics;  // workspace [B*S,steps,kWarps]
  A* share;                   // workspace [blocks for ties,S]: what each element at the maximum receives

  int64_t row() const { return F * frames; }

  void set_options(double floor_in, double amin_in, double top_db) {
    floor = static_cast<A>(floor_in);
    // Below the normal numbers of float32 there is no logarithm on the CPU: the same here.
    amin = static_cast<A>(std::max<double>(amin_in, std::numeric_limits<float>::min()));
    ratio = static_cast<A>(std::pow(10.0, -top_db / 20));
  }

  int64_t chunks() const { return std::min((row() + kChunkElements - 1) / kChunkElements, kMaxChunks); }

  /// How many values of A the workspaces hold, however many elements a thread reads at once.
  int64_t forward_workspace() const { return B * S * chunks(); }
  int64_t backward_workspace() const {
    return B * S * 2 * ((row() + kThreads - 1) / kThreads) * kWarps + (tied_blocks + B) * S;
  }
};

// In float32 one instruction each, in place of about 30 for expf, a division and logf. As the product rounds, odds are
// within (|x| + 2) 2^-23.
__device__ __forceinline__ float odds_against(float x) {
  return approximate_exp2(__fmul_rn(x, static_cast<float>(-std::numbers::log2e)));
}
__device__ __forceinline__ float reciprocal(float x) { return approximate_reciprocal(x); }
__device__ __forceinline__ float logarithm(float x) { return approximate_log2(x); }
__device__ __forceinline__ double odds_against(double x) { return exp(-x); }
__device__ __forceinline__ double reciprocal(double x) { return 1 / x; }
__device__ __forceinline__ double logarithm(double x) { return log2(x); }

__device__ __forceinline__ float add(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ double add(double a, double b) { return __dadd_rn(a, b); }
__device__ __forceinline__ float multiply(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ double multiply(double a, double b) { return __dmul_rn(a, b); }
__device__ __forceinline__ float multiply_add(float a, float b, float c) { return __fmaf_rn(a, b, c); }
__device__ __forceinline__ double multiply_add(double a, double b, double c) { return __fma_rn(a, b, c); }

/// One element under its mask.
template <typename A>
struct Masked {
  A odds;  // exp(-logit), infinite far below
  A open;  // sigmoid of the logit
  A mask;
  A value;
};

/// Every operation is one that the compiler neither fuses with another nor splits: all kernels get the same bits
/// of `value`, so that the backward finds the maximum again.
template <typename A>
__device__ __forceinline__ Masked<A> masked_of(A logit, A mel, A floor) {
  const A odds = odds_against(logit);
  const A open = reciprocal(add(A(1), odds));
  const A mask = multiply_add(add(A(1), -floor), open, floor);
  return {odds, open, mask, multiply(mask, mel)};
}

/// The larger one; a NaN wins.
template <typename A>
__device__ __forceinline__ A larger(A a, A b) {
  return (b > a || b != b) ? b : a;
}

/// The bands of a group of kCount elements that begins at element i of a row: one, or two where a band is no
/// whole number of groups, but no shorter than one.
template <int kCount, bool kOneBand>
struct Bands {
  uint32_t first, second;
  uint32_t count;  // of elements in the first

  template <typename A>
  __device__ __forceinline__ Bands(const MaskParams<A>& p, uint32_t i) : first(p.by_frames.quotient(i)) {
    count = kOneBand ? kCount : (first + 1) * p.by_frames.value - i;
    second = count < kCount ? first + 1 : first;
  }
  /// What belongs to element j of the group, of what belongs to each band.
  template <typename V>
  __device__ __forceinline__ const V& of(uint32_t j, const V& in_first, const V& in_second) const {
    return kOneBand || j < count ? in_first : in_second;
  }
};

/// launch(kCount, kOneBand) with the widest groups that addresses and bands allow.
template <typename T, typename A, typename Launch>
void with_groups(MaskParams<A>& p, Launch launch) {
  constexpr int kCount = kGroupBytes / sizeof(T);
  TASK_AWARE_CHECK(p.row() <= std::numeric_limits<int32_t>::max(),
                   "mel_mask: F*T is too large for one call; cut the clip.");
  exact_grid(p.B * p.S, "mel_mask");  // rows are numbered in 32 bits
  p.row_elements = static_cast<uint32_t>(p.row());
  p.by_sources = Divisor(p.S);
  p.by_frames = Divisor(p.frames);
  const bool aligned = falls_into_groups<T, kCount>(
      p.row(), {p.logits, p.mel, p.grad_masked, p.grad_features, p.out_masked, p.out_other});
  if (aligned && p.frames % kCount == 0) return launch.template operator()<kCount, true>();
  if (aligned && p.frames > kCount) return launch.template operator()<kCount, false>();
  launch.template operator()<1, true>();
}

}  // namespace
}  // namespace task_aware
