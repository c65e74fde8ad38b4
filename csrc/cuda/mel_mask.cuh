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
//   backward   gradient_kernel   a block takes one chunk of F*T of a clip through all S sources; a warp leaves what
//                                it saw of gradient held at the threshold and of elements at the maximum
//              share_kernel      a block per row makes of these what each element at the maximum receives
//              gradient_kernel   again, the blocks with such an element alone: one or a few of each clip
// Traffic: forward reads logits once from memory and once from the L2 cache; backward reads logits and gradients
// once; outputs are written once. No atomics.

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "common/accumulate.h"
#include "common/check.h"
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
  int64_t first_row;  // of the (b,s) rows, for this launch of the forward
  int count;          // values that a thread reads at once

  // the workspace, set by the launching functions
  A* maxima;  // [B*S,chunks]
  A* held;    // [B*S,steps,kWarps]: gradient held at the threshold
  A* ties;    // [B*S,steps,kWarps]: number of elements at the maximum
  A* share;   // [B*S]: what each element at the maximum receives on behalf of those held at the threshold

  __host__ __device__ int64_t row() const { return F * frames; }

  void set_options(double floor_in, double amin_in, double top_db) {
    floor = static_cast<A>(floor_in);
    // Below the normal numbers of float32 there is no logarithm on the CPU: the same here.
    amin = static_cast<A>(std::max<double>(amin_in, std::numeric_limits<float>::min()));
    ratio = static_cast<A>(std::pow(10.0, -top_db / 20));
  }

  /// Forward: chunks of a row, and their length.
  __host__ __device__ int64_t chunks() const {
    const int64_t wanted = (row() + kChunkElements - 1) / kChunkElements;
    return wanted < kMaxChunks ? wanted : kMaxChunks;
  }
  __host__ __device__ int64_t chunk_elements() const {
    const int64_t step = kThreads * count;
    return ((row() + chunks() - 1) / chunks() + step - 1) / step * step;
  }
  /// Backward: blocks that each take one step of all their threads through a row.
  __host__ __device__ int64_t steps() const { return (row() + kThreads * count - 1) / (kThreads * count); }

  /// How many values of A the workspaces hold, whatever `count` will be.
  int64_t forward_workspace() const { return B * S * chunks(); }
  int64_t backward_workspace() const {
    return B * S * (2 * ((row() + kThreads - 1) / kThreads) * kWarps + 1);
  }
};

__device__ __forceinline__ float exponential(float x) { return expf(x); }
__device__ __forceinline__ double exponential(double x) { return exp(x); }
__device__ __forceinline__ float logarithm(float x) { return logf(x); }
__device__ __forceinline__ double logarithm(double x) { return log(x); }

/// exp(-x), finite.
template <typename A>
__device__ __forceinline__ A odds_against(A x) {
  constexpr A kLimit = sizeof(A) == 4 ? A(87) : A(700);
  return exponential(x < -kLimit ? kLimit : -x);
}

template <typename A>
__device__ __forceinline__ A sigmoid(A x) {
  return A(1) / (A(1) + odds_against(x));
}

// One explicit fma and one product: every kernel gets the same bits, so that ties are found again.
template <typename A>
__device__ __forceinline__ A mask_of(A open, A floor) {
  return fma(A(1) - floor, open, floor);
}

/// The larger one; a NaN wins.
template <typename A>
__device__ __forceinline__ A larger(A a, A b) {
  return (b > a || b != b) ? b : a;
}

/// The band of element i of a row, and the frames from it to the band's end.
struct Place {
  int band;
  int left;

  template <typename A>
  __device__ Place(const MaskParams<A>& p, int64_t i)
      : band(static_cast<int>(static_cast<uint32_t>(i) / static_cast<uint32_t>(p.frames))),
        left(static_cast<int>((band + 1) * p.frames - i)) {}

  /// On to the next element; whether that begins another band.
  template <typename A>
  __device__ bool step(const MaskParams<A>& p) {
    if (--left > 0 || band + 1 == p.F) return false;
    ++band;
    left = static_cast<int>(p.frames);
    return true;
  }
};

/// Calls visit(i) for this thread's groups of kCount elements of its chunk.
template <int kCount, typename A, typename Visit>
__device__ __forceinline__ void for_chunk(const MaskParams<A>& p, Visit visit) {
  const int64_t begin = blockIdx.x % p.chunks() * p.chunk_elements();
  const int64_t end = min(begin + p.chunk_elements(), p.row());
  for (int64_t i = begin + threadIdx.x * kCount; i < end; i += kThreads * kCount) visit(i);
}

template <typename T, int kCount, typename A = accumulate_t<T>>
__global__ void __launch_bounds__(kThreads) maximum_kernel(MaskParams<A> p) {
  __shared__ A shared[kThreads];
  const int64_t row = p.first_row + blockIdx.x / p.chunks();
  A largest = p.amin;
  for_chunk<kCount>(p, [&](int64_t i) {
    const auto logits = load<T, kCount>(p.logits, row * p.row() + i);
    const auto mel = load<T, kCount>(p.mel, row / p.S * p.row() + i);
    for (int j = 0; j < kCount; ++j) {
      const A mask = mask_of(sigmoid(static_cast<A>(logits.values[j])), p.floor);
      largest = larger(largest, mask * static_cast<A>(mel.values[j]));
    }
  });
  largest = block_reduce<kThreads>(largest, shared, [](A a, A b) { return larger(a, b); });
  if (threadIdx.x == 0) p.maxima[row * p.chunks() + blockIdx.x % p.chunks()] = largest;
}

template <typename T, int kCount, typename A = accumulate_t<T>>
__global__ void __launch_bounds__(kThreads) features_kernel(MaskParams<A> p) {
  const int64_t row = p.first_row + blockIdx.x / p.chunks();
  A maximum = p.maxima[row * p.chunks()];
  for (int64_t c = 1; c < p.chunks(); ++c) maximum = larger(maximum, p.maxima[row * p.chunks() + c]);
  if (blockIdx.x % p.chunks() == 0 && threadIdx.x == 0) p.maximum[row] = maximum;
  const A least = larger(p.amin, maximum * p.ratio);
  for_chunk<kCount>(p, [&](int64_t i) {
    const auto logits = load<T, kCount>(p.logits, row * p.row() + i);
    const auto mel = load<T, kCount>(p.mel, row / p.S * p.row() + i);
    Vector<T, kCount> masked_out, features_out;
    Place place(p, i);
    A mean = p.mean[place.band], std = p.std[place.band];
    for (int j = 0; j < kCount; ++j) {
      const A mask = mask_of(sigmoid(static_cast<A>(logits.values[j])), p.floor);
      const A masked = mask * static_cast<A>(mel.values[j]);
      const A amplitude = masked >= least ? masked : (maximum == maximum ? least : maximum);
      masked_out.values[j] = static_cast<T>(masked);
      features_out.values[j] =
          static_cast<T>((static_cast<A>(kDecibelsPerNeper) * logarithm(amplitude) - mean) / std);
      if (place.step(p)) mean = p.mean[place.band], std = p.std[place.band];
    }
    store<T, kCount>(p.out_masked, row * p.row() + i, masked_out);
    store<T, kCount>(p.out_other, row * p.row() + i, features_out);
  });
}

template <typename A>
__device__ __forceinline__ A warp_sum(A value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}

/// With kAgain, for the elements at a maximum that receive a share, which share_kernel has made meanwhile.
template <typename T, int kCount, bool kAgain, typename A = accumulate_t<T>>
__global__ void __launch_bounds__(kThreads, 2) gradient_kernel(MaskParams<A> p) {
  const int64_t b = blockIdx.x / p.steps(), step = blockIdx.x % p.steps();
  const int64_t i = (step * kThreads + threadIdx.x) * kCount;
  const bool inside = i < p.row();
  if constexpr (kAgain) {
    bool needed = false;
    for (int64_t k = threadIdx.x; k < p.S * kWarps; k += kThreads) {
      const int64_t row = b * p.S + k / kWarps;
      needed |= p.share[row] != A(0) && p.ties[(row * p.steps() + step) * kWarps + k % kWarps] > A(0);
    }
    if (!__syncthreads_or(needed)) return;
  }

  Vector<T, kCount> mel{};
  A scale[kCount] = {}, grad_mel[kCount] = {};
  if (inside) {
    mel = load<T, kCount>(p.mel, b * p.row() + i);
    if (p.grad_features) {
      Place place(p, i);
#pragma unroll
      for (int j = 0; j < kCount; ++j) {
        scale[j] = static_cast<A>(kDecibelsPerNeper) / p.std[place.band];
        place.step(p);
      }
    }
  }
  for (int64_t s = 0; s < p.S; ++s) {
    const int64_t row = b * p.S + s, at = row * p.row() + i;
    const A maximum = p.maximum[row], threshold = maximum * p.ratio, least = larger(p.amin, threshold);
    const A share = kAgain ? p.share[row] : A(0);
    const A poison = p.grad_features && maximum != maximum ? maximum : A(0);
    A held = 0, ties = 0;
    if (inside) {
      const auto logits = load<T, kCount>(p.logits, at);
      Vector<T, kCount> to_masked{}, to_features{}, out;
      if (p.grad_masked) to_masked = load<T, kCount>(p.grad_masked, at);
      if (p.grad_features) to_features = load<T, kCount>(p.grad_features, at);
#pragma unroll
      for (int j = 0; j < kCount; ++j) {
        const A odds = odds_against(static_cast<A>(logits.values[j])), open = A(1) / (A(1) + odds);
        const A mask = mask_of(open, p.floor), value = static_cast<A>(mel.values[j]), masked = mask * value;
        const A through = scale[j] * static_cast<A>(to_features.values[j]);
        A grad = static_cast<A>(to_masked.values[j]);
        if (masked >= p.amin) grad += poison;
        if (masked >= least) {
          grad += through / masked;
        } else if (threshold > p.amin) {
          held += through;
        }
        if (masked == maximum) {
          grad += share;
          ties += 1;
        }
        // odds * open is 1 - open, to full precision.
        out.values[j] = static_cast<T>(grad * value * ((A(1) - p.floor) * open * (odds * open)));
        grad_mel[j] += grad * mask;
      }
      store<T, kCount>(p.out_masked, at, out);
    }
    if (!kAgain && p.grad_features) {
      held = warp_sum(held);
      ties = warp_sum(ties);
      if (threadIdx.x % 32 == 0) {
        const int64_t of_warp = (row * p.steps() + step) * kWarps + threadIdx.x / 32;
        p.held[of_warp] = held;
        p.ties[of_warp] = ties;
      }
    }
  }
  if (!inside || p.out_other == nullptr) return;
  Vector<T, kCount> out;
#pragma unroll
  for (int j = 0; j < kCount; ++j) out.values[j] = static_cast<T>(grad_mel[j]);
  store<T, kCount>(p.out_other, b * p.row() + i, out);
}

template <typename A>
__global__ void __launch_bounds__(kThreads) share_kernel(MaskParams<A> p) {
  __shared__ double shared[kThreads];
  const int64_t row = blockIdx.x, count = p.steps() * kWarps;
  double held = 0, ties = 0;
  for (int64_t k = threadIdx.x; k < count; k += kThreads) {
    held += static_cast<double>(p.held[row * count + k]);
    ties += static_cast<double>(p.ties[row * count + k]);
  }
  const auto add = [](double a, double b) { return a + b; };
  held = block_reduce<kThreads>(held, shared, add);
  ties = block_reduce<kThreads>(ties, shared, add);
  if (threadIdx.x == 0) {
    p.share[row] = ties > 0 ? static_cast<A>(held / (static_cast<double>(p.maximum[row]) * ties)) : A(0);
  }
}

template <typename T, int kCount, typename A>
void launch_forward(MaskParams<A> p, cudaStream_t stream) {
  p.count = kCount;
  const int64_t rows = p.B * p.S, bytes = rows * p.row() * static_cast<int64_t>(sizeof(T));
  const int64_t parts = std::max<int64_t>(1, (bytes + p.cache_bytes - 1) / p.cache_bytes);
  const int64_t rows_at_once = (rows + parts - 1) / parts;
  for (p.first_row = 0; p.first_row < rows; p.first_row += rows_at_once) {
    const int64_t blocks = std::min(rows_at_once, rows - p.first_row) * p.chunks();
    const unsigned int grid = exact_grid(blocks, "mel_mask");
    launch({"maximum_kernel", grid, kThreads, stream}, maximum_kernel<T, kCount>, p);
    launch({"features_kernel", grid, kThreads, stream}, features_kernel<T, kCount>, p);
  }
}

template <typename T, int kCount, typename A>
void launch_backward(MaskParams<A> p, A* workspace, cudaStream_t stream) {
  p.count = kCount;
  const int64_t rows = p.B * p.S, warps = rows * p.steps() * kWarps;
  p.held = workspace;
  p.ties = p.held + warps;
  p.share = p.ties + warps;
  const unsigned int grid = exact_grid(p.B * p.steps(), "mel_mask");
  launch({"gradient_kernel", grid, kThreads, stream}, gradient_kernel<T, kCount, false>, p);
  if (p.grad_features == nullptr) return;
  launch({"share_kernel", exact_grid(rows, "mel_mask"), kThreads, stream}, share_kernel<A>, p);
  launch({"gradient_kernel, again", grid, kThreads, stream}, gradient_kernel<T, kCount, true>, p);
}

template <typename T, typename A>
bool can_group(const MaskParams<A>& p) {
  TASK_AWARE_CHECK(p.row() <= std::numeric_limits<int32_t>::max(),
                   "mel_mask: F*T is too large for one call; cut the clip.");
  return falls_into_groups<T, kGroupBytes / sizeof(T)>(
      p.row(), {p.logits, p.mel, p.grad_masked, p.grad_features, p.out_masked, p.out_other});
}

/// `workspace` holds forward_workspace() values.
template <typename T, typename A = accumulate_t<T>>
void launch_mel_mask(MaskParams<A> p, A* workspace, cudaStream_t stream) {
  p.maxima = workspace;
  can_group<T>(p) ? launch_forward<T, kGroupBytes / sizeof(T)>(p, stream) : launch_forward<T, 1>(p, stream);
}

/// `workspace` holds backward_workspace() values.
template <typename T, typename A = accumulate_t<T>>
void launch_mel_mask_backward(MaskParams<A> p, A* workspace, cudaStream_t stream) {
  can_group<T>(p) ? launch_backward<T, kGroupBytes / sizeof(T)>(p, workspace, stream)
                  : launch_backward<T, 1>(p, workspace, stream);
}

}  // namespace
}  // namespace task_aware
