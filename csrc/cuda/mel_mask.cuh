#pragma once

// mel_mask: mask = floor + (1 - floor) sigmoid(logits), masked = mask * mel
//   features = (20 log10(max(masked, amin, threshold)) - mean) / std
//   maximum[b,s] = max(amin, masked) over F and T, kept for the backward
//   threshold[b,s] = maximum * 10^(-top_db / 20)
//   logits [B,S,F,T], mel [B,F,T], mean and std [F]
// backward: as csrc/cpu/mel_mask.cpp writes it
//
// Mapping: a (b,s) row of F*T values is cut into chunks, one block each.
//   forward    maximum_kernel    the largest value of each chunk
//              features_kernel   every block reduces its row's chunks and writes both outputs
//              for as many rows at a time as stay in the L2 cache between the two
//   backward   gradient_kernel   a block takes one step through F*T of a clip, for all S sources; a warp leaves what
//                                it saw of gradient held at the threshold and of elements at the maximum
//              tied_kernel       a few blocks per clip make of these what each element at the maximum receives, and
//                                take the steps with such an element again: mostly one for each source
// Traffic: forward reads logits once from memory and once from the L2 cache; backward reads logits and gradients
// once; outputs are written once. No atomics.

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numbers>

#include "common/accumulate.h"
#include "common/check.h"
#include "cuda/approximate.cuh"
#include "cuda/block_reduce.cuh"
#include "cuda/grid.h"
#include "cuda/launch.h"
#include "cuda/vector.cuh"

namespace task_aware {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kGroupBytes = 16;  // that a thread reads at once where addresses allow
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

/// A thread's way through its block's chunk of a row in the forward, from group to group.
template <int kCount>
struct Walk {
  static constexpr uint32_t kStep = kThreads * kCount;
  int64_t row, clip;
  uint32_t chunk, i, end;  // the group's first element, and the chunk's end, within the row

  template <typename A>
  __device__ __forceinline__ explicit Walk(const MaskParams<A>& p) {
    const uint32_t row_of_launch = p.by_blocks.quotient(blockIdx.x);
    row = p.first_row + row_of_launch;
    clip = p.by_sources.quotient(static_cast<uint32_t>(row));
    chunk = blockIdx.x - row_of_launch * p.by_blocks.value;
    const uint32_t begin = chunk * p.chunk_elements;
    i = begin + threadIdx.x * kCount;
    end = min(begin + p.chunk_elements, p.row_elements);
  }
};

template <typename T, int kCount, typename A = accumulate_t<T>>
__global__ void __launch_bounds__(kThreads) maximum_kernel(MaskParams<A> p) {
  __shared__ A shared[kWarps];
  Walk<kCount> walk(p);
  const T* logits_at = static_cast<const T*>(p.logits) + walk.row * p.row_elements + walk.i;
  const T* mel_at = static_cast<const T*>(p.mel) + walk.clip * p.row_elements + walk.i;
  A largest = p.amin;
  bool broken = false;
  for (; walk.i < walk.end; walk.i += walk.kStep, logits_at += walk.kStep, mel_at += walk.kStep) {
    const auto logits = load<T, kCount>(logits_at, 0), mel = load<T, kCount>(mel_at, 0);
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      const A masked =
          masked_of(static_cast<A>(logits.values[j]), static_cast<A>(mel.values[j]), p.floor).value;
      largest = fmax(largest, masked);
      broken |= masked != masked;
    }
  }
  if (broken) largest = std::numeric_limits<A>::quiet_NaN();
  largest = block_reduce<kThreads>(largest, shared, larger<A>);
  if (threadIdx.x == 0) p.maxima[walk.row * p.by_blocks.value + walk.chunk] = largest;
}

/// features = log2(amplitude) * scale + offset
template <typename A>
struct Scaling {
  A scale, offset;

  __device__ __forceinline__ Scaling(const MaskParams<A>& p, uint32_t band, A poison) {
    const A inverse = reciprocal(p.std[band]);
    scale = static_cast<A>(kDecibelsPerOctave) * inverse;
    offset = poison - p.mean[band] * inverse;
  }
};

template <typename T, int kCount, bool kOneBand, typename A = accumulate_t<T>>
__global__ void __launch_bounds__(kThreads) features_kernel(MaskParams<A> p) {
  Walk<kCount> walk(p);
  A maximum = p.amin;
  for (uint32_t c = threadIdx.x % 32; c < p.by_blocks.value; c += 32) {
    maximum = larger(maximum, p.maxima[walk.row * p.by_blocks.value + c]);
  }
  maximum = warp_reduce(maximum, larger<A>);
  if (walk.chunk == 0 && threadIdx.x == 0) p.maximum[walk.row] = maximum;
  const A least = larger(p.amin, maximum * p.ratio), poison = maximum == maximum ? A(0) : maximum;
  const int64_t at = walk.row * p.row_elements + walk.i;
  const T* logits_at = static_cast<const T*>(p.logits) + at;
  const T* mel_at = static_cast<const T*>(p.mel) + walk.clip * p.row_elements + walk.i;
  T* masked_at = static_cast<T*>(p.out_masked) + at;
  T* features_at = static_cast<T*>(p.out_other) + at;
  for (; walk.i < walk.end; walk.i += walk.kStep) {
    const auto logits = load<T, kCount>(logits_at, 0), mel = load<T, kCount>(mel_at, 0);
    const Bands<kCount, kOneBand> bands(p, walk.i);
    const Scaling<A> first(p, bands.first, poison);
    const Scaling<A> second = kOneBand ? first : Scaling<A>(p, bands.second, poison);
    Vector<T, kCount> masked_out, features_out;
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      const A masked =
          masked_of(static_cast<A>(logits.values[j]), static_cast<A>(mel.values[j]), p.floor).value;
      const Scaling<A> scaling = bands.of(j, first, second);
      masked_out.values[j] = static_cast<T>(masked);
      features_out.values[j] =
          static_cast<T>(logarithm(fmax(masked, least)) * scaling.scale + scaling.offset);
    }
    store<T, kCount>(masked_at, 0, masked_out);
    store<T, kCount>(features_at, 0, features_out);
    logits_at += walk.kStep, mel_at += walk.kStep, masked_at += walk.kStep, features_at += walk.kStep;
  }
}

/// The sum over a warp, of values that are mostly 0 in all its lanes.
template <typename A>
__device__ __forceinline__ A rare_sum(A value) {
  if (!__any_sync(0xffffffffu, value != A(0))) return A(0);
  return warp_reduce(value, [](A a, A b) { return a + b; });
}

/// One step of a block through `count` sources of a clip from `begin` on. With kAgain the elements at the maximum of
/// source s receive shares[s]; before, when shares are not known, each warp leaves its statistics.
template <typename T, int kCount, bool kOneBand, bool kAgain, typename A>
__device__ __forceinline__ void gradient_step(const MaskParams<A>& p, int64_t clip, uint32_t step,
                                              uint32_t begin, uint32_t count, const A* shares) {
  const uint32_t i = (step * kThreads + threadIdx.x) * kCount;
  const bool inside = i < p.row_elements;
  Vector<T, kCount> mel{};
  A first = 0, second = 0, grad_mel[kCount] = {};
  const Bands<kCount, kOneBand> bands(p, inside ? i : 0);
  const int64_t first_row = clip * p.S + begin;
  int64_t at = first_row * p.row_elements + i;
  Statistics<A>* of_warp = p.statistics + (first_row * p.steps + step) * kWarps + threadIdx.x / 32;
  if (inside) {
    mel = load<T, kCount>(p.mel, clip * p.row_elements + i);
    if (p.grad_features) {
      first = static_cast<A>(kDecibelsPerNeper) * reciprocal(p.std[bands.first]);
      second = kOneBand ? first : static_cast<A>(kDecibelsPerNeper) * reciprocal(p.std[bands.second]);
    }
  }
  for (uint32_t k = 0; k < count; ++k, at += p.row_elements, of_warp += p.steps * kWarps) {
    const A maximum = p.maximum[first_row + k], threshold = maximum * p.ratio;
    const bool broken = maximum != maximum;
    const A least = broken ? p.amin : larger(p.amin, threshold);
    const A poison = broken && p.grad_features ? maximum : A(0);
    const A held_below = threshold > p.amin ? threshold : -std::numeric_limits<A>::infinity();
    const A share = kAgain ? shares[begin + k] : A(0);
    A held = 0, ties = 0;
    if (inside) {
      const auto logits = load<T, kCount>(p.logits, at);
      Vector<T, kCount> to_masked{}, to_features{}, out;
      if (p.grad_masked) to_masked = load<T, kCount>(p.grad_masked, at);
      if (p.grad_features) to_features = load<T, kCount>(p.grad_features, at);
#pragma unroll
      for (int j = 0; j < kCount; ++j) {
        const A value = static_cast<A>(mel.values[j]);
        const Masked<A> masked = masked_of(static_cast<A>(logits.values[j]), value, p.floor);
        const A through = bands.of(j, first, second) * static_cast<A>(to_features.values[j]) + poison;
        A grad = static_cast<A>(to_masked.values[j]);
        if (masked.value >= least) grad += through * reciprocal(masked.value);
        if (masked.value < held_below) held += through;
        if (masked.value == maximum) {
          ties += 1;
          if constexpr (kAgain) grad += share;
        }
        const A closed = fmin(masked.odds * masked.open, A(1));  // 1 - open; also of infinite odds
        out.values[j] = static_cast<T>(grad * value * ((A(1) - p.floor) * masked.open * closed));
        grad_mel[j] += grad * masked.mask;
      }
      store<T, kCount>(p.out_masked, at, out);
    }
    if (!kAgain && p.grad_features) {
      held = rare_sum(held);
      ties = rare_sum(ties);
      if (threadIdx.x % 32 == 0) *of_warp = {held, ties};
    }
  }
  if (!inside || p.out_other == nullptr) return;
  Vector<T, kCount> out;
#pragma unroll
  for (int j = 0; j < kCount; ++j) out.values[j] = static_cast<T>(grad_mel[j]);
  store<T, kCount>(p.out_other, clip * p.row_elements + i, out);
}

template <typename T, int kCount, bool kOneBand, typename A = accumulate_t<T>>
__global__ void __launch_bounds__(kThreads, kCount > 4 ? 3 : 4) gradient_kernel(MaskParams<A> p) {
  const uint32_t clip = p.by_blocks.quotient(blockIdx.x), step = blockIdx.x - clip * p.by_blocks.value;
  gradient_step<T, kCount, kOneBand, false>(p, clip, step, 0, p.by_sources.value,
                                            static_cast<const A*>(nullptr));
}

/// Again the steps with elements at a maximum that receives for others; the blocks of a clip take turns. The sources
/// of a step are as many tasks, unless the gradient of mel adds them up.
template <typename T, int kCount, bool kOneBand, typename A = accumulate_t<T>>
__global__ void __launch_bounds__(kThreads, 2) tied_kernel(MaskParams<A> p) {
  constexpr int kAtOnce = 8;  // loads that do not wait for each other
  __shared__ bool needed[kThreads];
  const uint32_t blocks = p.by_blocks.value, clip = p.by_blocks.quotient(blockIdx.x);
  const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, sources = p.by_sources.value;
  const uint32_t seen_of_source = p.steps * kWarps;
  const Statistics<A>* const of_clip = p.statistics + int64_t{clip} * sources * seen_of_source;
  A* const shares = p.share + int64_t{blockIdx.x} * sources;
  for (uint32_t s = warp; s < sources; s += kWarps) {
    const Statistics<A>* const of_source = of_clip + int64_t{s} * seen_of_source;
    double held = 0, ties = 0;
    for (uint32_t begin = lane; begin < seen_of_source; begin += 32 * kAtOnce) {
      Statistics<A> seen[kAtOnce];
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k) {
        const uint32_t n = begin + 32 * k;
        seen[k] = n < seen_of_source ? of_source[n] : Statistics<A>{};
      }
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k) {
        held += static_cast<double>(seen[k].held);
        ties += static_cast<double>(seen[k].ties);
      }
    }
    const auto sum = [](double a, double b) { return a + b; };
    held = warp_reduce(held, sum);
    ties = warp_reduce(ties, sum);
    const double maximum = static_cast<double>(p.maximum[int64_t{clip} * sources + s]);
    if (lane == 0) shares[s] = ties > 0 ? static_cast<A>(held / (maximum * ties)) : A(0);
  }

  struct Task {
    uint32_t step, begin, count;  // of sources
  };
  const uint32_t tasks_of_step = p.out_other == nullptr ? sources : 1;
  const auto task = [&](uint32_t number) {
    const uint32_t step = tasks_of_step == 1 ? number : p.by_sources.quotient(number);
    return Task{step, number - step * tasks_of_step, tasks_of_step == 1 ? sources : 1};
  };
  const uint32_t tasks = p.steps * tasks_of_step;
  for (uint32_t first = blockIdx.x - clip * blocks; first < tasks; first += kThreads * blocks) {
    __syncthreads();
    const uint32_t number = first + threadIdx.x * blocks;
    const Task mine = number < tasks ? task(number) : Task{};
    bool any = false;
    for (uint32_t s = mine.begin; s < mine.begin + mine.count; ++s) {
      const Statistics<A>* const seen = of_clip + (int64_t{s} * p.steps + mine.step) * kWarps;
      bool tied = false;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) tied |= seen[w].ties > A(0);
      any |= tied & (shares[s] != A(0));
    }
    needed[threadIdx.x] = any;
    __syncthreads();
    for (uint32_t k = 0; k < kThreads && first + k * blocks < tasks; ++k) {
      if (!needed[k]) continue;
      const Task again = task(first + k * blocks);
      gradient_step<T, kCount, kOneBand, true>(p, clip, again.step, again.begin, again.count, shares);
    }
  }
}

template <typename T, int kCount, bool kOneBand, typename A>
void launch_forward(MaskParams<A> p, A* workspace, cudaStream_t stream) {
  constexpr int64_t kStep = kThreads * kCount;
  const int64_t rows = p.B * p.S, bytes = rows * p.row() * static_cast<int64_t>(sizeof(T)),
                chunks = p.chunks();
  const int64_t parts = std::max<int64_t>(1, (bytes + p.cache_bytes - 1) / p.cache_bytes);
  const int64_t rows_at_once = (rows + parts - 1) / parts;
  p.chunk_elements = static_cast<uint32_t>(((p.row() + chunks - 1) / chunks + kStep - 1) / kStep * kStep);
  p.by_blocks = Divisor(chunks);
  p.maxima = workspace;
  for (p.first_row = 0; p.first_row < rows; p.first_row += rows_at_once) {
    const int64_t blocks = std::min(rows_at_once, rows - p.first_row) * chunks;
    const unsigned int grid = exact_grid(blocks, "mel_mask");
    launch({"maximum_kernel", grid, kThreads, stream}, maximum_kernel<T, kCount>, p);
    launch({"features_kernel", grid, kThreads, stream}, features_kernel<T, kCount, kOneBand>, p);
  }
}

template <typename T, int kCount, bool kOneBand, typename A>
void launch_backward(MaskParams<A> p, A* workspace, cudaStream_t stream) {
  const int64_t steps = (p.row() + kThreads * kCount - 1) / (kThreads * kCount);
  p.steps = static_cast<uint32_t>(steps);
  p.by_blocks = Divisor(steps);
  p.statistics = reinterpret_cast<Statistics<A>*>(workspace);
  launch({"gradient_kernel", exact_grid(p.B * steps, "mel_mask"), kThreads, stream},
         gradient_kernel<T, kCount, kOneBand>, p);
  if (p.grad_features == nullptr) return;
  const int64_t for_ties = std::min((p.tied_blocks + p.B - 1) / p.B, steps * (p.out_other ? 1 : p.S));
  p.by_blocks = Divisor(for_ties);
  p.share = workspace + 2 * p.B * p.S * steps * kWarps;
  launch({"tied_kernel", exact_grid(p.B * for_ties, "mel_mask"), kThreads, stream},
         tied_kernel<T, kCount, kOneBand>, p);
}

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

/// `workspace` holds forward_workspace() values.
template <typename T, typename A = accumulate_t<T>>
void launch_mel_mask(MaskParams<A> p, A* workspace, cudaStream_t stream) {
  with_groups<T>(
      p, [&]<int kCount, bool kOneBand>() { launch_forward<T, kCount, kOneBand>(p, workspace, stream); });
}

/// `workspace` holds backward_workspace() values.
template <typename T, typename A = accumulate_t<T>>
void launch_mel_mask_backward(MaskParams<A> p, A* workspace, cudaStream_t stream) {
  with_groups<T>(
      p, [&]<int kCount, bool kOneBand>() { launch_backward<T, kCount, kOneBand>(p, workspace, stream); });
}

}  // namespace
}  // namespace task_aware
