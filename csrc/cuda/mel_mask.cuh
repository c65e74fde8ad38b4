#pragma once

// mel_mask: mask = floor + (1 - floor) sigmoid(logits), masked = mask * mel
//   features = (20 log10(max(masked, amin, threshold)) - mean) / std
//   maximum[b,s] = max(amin, masked) over F and T, kept for the backward
//   threshold[b,s] = maximum * 10^(-top_db / 20)
//   logits [B,S,F,T], mel [B,F,T], mean and std [F]
// backward: as csrc/cpu/mel_mask.cpp writes it
//
// Mapping: a (b,s) row of F*T values is cut into chunks, one block each.
//   forward    maximum of each chunk; then every block reduces its row's chunks and writes both outputs
//   backward   each chunk's gradient held at the threshold and its elements at the maximum; one thread per
//              row makes the share of each maximum of it; then a block takes one chunk of F*T of a clip
//              through all S sources
// Traffic: logits once from memory and once from the L2 cache, both outputs (or gradients) once. No atomics.

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "common/accumulate.h"
#include "cuda/block_reduce.cuh"
#include "cuda/grid.h"
#include "cuda/launch.h"
#include "cuda/vector.cuh"

namespace task_aware {
namespace {

constexpr int kThreads = 256;
constexpr int kWidth = 4;  // values that a thread reads at once where addresses allow
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
  void* out_other;

  // set by plan_chunks
  int64_t chunks;          // of a row
  int64_t chunk_elements;  // a multiple of kWidth

  // the workspace, set by the launching functions
  A* partial;  // [B*S,chunks]: maximum, or gradient held at the threshold
  A* ties;     // [B*S,chunks]: number of elements at the maximum
  A* share;    // [B*S]: what each element at the maximum receives on behalf of those held at the threshold

  __host__ __device__ int64_t row() const { return F * frames; }

  void set_options(double floor_in, double amin_in, double top_db) {
    floor = static_cast<A>(floor_in);
    // Below the normal numbers of float32 there is no logarithm on the CPU: the same here.
    amin = static_cast<A>(std::max<double>(amin_in, std::numeric_limits<float>::min()));
    ratio = static_cast<A>(std::pow(10.0, -top_db / 20));
  }

  /// Cuts the rows and returns how many values of A the workspace holds.
  int64_t plan_chunks() {
    chunks = std::clamp<int64_t>((row() + kChunkElements - 1) / kChunkElements, 1, kMaxChunks);
    chunk_elements = ((row() + chunks - 1) / chunks + kWidth - 1) / kWidth * kWidth;
    return B * S * (2 * chunks + 1);
  }

  void use_workspace(A* workspace) {
    partial = workspace;
    ties = partial + B * S * chunks;
    share = ties + B * S * chunks;
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

/// Calls visit(first) for this thread's groups of kCount elements of chunk `chunk`.
template <int kCount, typename A, typename Visit>
__device__ __forceinline__ void for_chunk(const MaskParams<A>& p, int64_t chunk, Visit visit) {
  const int64_t begin = chunk * p.chunk_elements, row = p.row();
  const int64_t end = begin + p.chunk_elements < row ? begin + p.chunk_elements : row;
  for (int64_t i = begin + threadIdx.x * kCount; i < end; i += kThreads * kCount) visit(i);
}

template <typename T, int kCount, typename A = accumulate_t<T>>
__global__ void __launch_bounds__(kThreads) maximum_kernel(MaskParams<A> p) {
  __shared__ A shared[kThreads];
  const int64_t row = blockIdx.x / p.chunks, chunk = blockIdx.x % p.chunks;
  A largest = p.amin;
  for_chunk<kCount>(p, chunk, [&](int64_t i) {
    const auto logits = load<T, kCount>(p.logits, row * p.row() + i);
    const auto mel = load<T, kCount>(p.mel, row / p.S * p.row() + i);
    for (int j = 0; j < kCount; ++j) {
      const A mask = mask_of(sigmoid(static_cast<A>(logits.values[j])), p.floor);
      largest = larger(largest, mask * static_cast<A>(mel.values[j]));
    }
  });
  largest = block_reduce<kThreads>(largest, shared, [](A a, A b) { return larger(a, b); });
  if (threadIdx.x == 0) p.partial[blockIdx.x] = largest;
}

template <typename T, int kCount, typename A = accumulate_t<T>>
__global__ void __launch_bounds__(kThreads) features_kernel(MaskParams<A> p) {
  const int64_t row = blockIdx.x / p.chunks, chunk = blockIdx.x % p.chunks;
  A maximum = p.partial[row * p.chunks];
  for (int64_t c = 1; c < p.chunks; ++c) maximum = larger(maximum, p.partial[row * p.chunks + c]);
  if (chunk == 0 && threadIdx.x == 0) p.maximum[row] = maximum;
  const A least = larger(p.amin, maximum * p.ratio);
  for_chunk<kCount>(p, chunk, [&](int64_t i) {
    const auto logits = load<T, kCount>(p.logits, row * p.row() + i);
    const auto mel = load<T, kCount>(p.mel, row / p.S * p.row() + i);
    Vector<T, kCount> masked_out, features_out;
    int64_t f = i / p.frames, t = i - f * p.frames;
    for (int j = 0; j < kCount; ++j) {
      const A mask = mask_of(sigmoid(static_cast<A>(logits.values[j])), p.floor);
      const A masked = mask * static_cast<A>(mel.values[j]);
      const A amplitude = masked >= least ? masked : (maximum == maximum ? least : maximum);
      masked_out.values[j] = static_cast<T>(masked);
      features_out.values[j] =
          static_cast<T>((static_cast<A>(kDecibelsPerNeper) * logarithm(amplitude) - p.mean[f]) / p.std[f]);
      if (++t == p.frames) {
        t = 0;
        f = f + 1 < p.F ? f + 1 : f;
      }
    }
    store<T, kCount>(p.out_masked, row * p.row() + i, masked_out);
    store<T, kCount>(p.out_other, row * p.row() + i, features_out);
  });
}

template <typename T, int kCount, typename A = accumulate_t<T>>
__global__ void __launch_bounds__(kThreads) held_kernel(MaskParams<A> p) {
  __shared__ A shared[kThreads];
  const int64_t row = blockIdx.x / p.chunks, chunk = blockIdx.x % p.chunks;
  const A maximum = p.maximum[row], threshold = maximum * p.ratio;
  A held = 0, ties = 0;
  for_chunk<kCount>(p, chunk, [&](int64_t i) {
    const auto logits = load<T, kCount>(p.logits, row * p.row() + i);
    const auto mel = load<T, kCount>(p.mel, row / p.S * p.row() + i);
    const auto grad = load<T, kCount>(p.grad_features, row * p.row() + i);
    int64_t f = i / p.frames, t = i - f * p.frames;
    for (int j = 0; j < kCount; ++j) {
      const A mask = mask_of(sigmoid(static_cast<A>(logits.values[j])), p.floor);
      const A amplitude = larger(p.amin, mask * static_cast<A>(mel.values[j]));
      if (amplitude < threshold) held += static_cast<A>(grad.values[j]) / p.std[f];
      if (amplitude == maximum) ties += 1;
      if (++t == p.frames) {
        t = 0;
        f = f + 1 < p.F ? f + 1 : f;
      }
    }
  });
  held = block_reduce<kThreads>(held, shared, [](A a, A b) { return a + b; });
  ties = block_reduce<kThreads>(ties, shared, [](A a, A b) { return a + b; });
  if (threadIdx.x == 0) {
    p.partial[blockIdx.x] = held;
    p.ties[blockIdx.x] = ties;
  }
}

template <typename A>
__global__ void __launch_bounds__(kThreads) share_kernel(MaskParams<A> p) {
  const int64_t row = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (row >= p.B * p.S) return;
  A held = 0, ties = 0;
  for (int64_t c = 0; c < p.chunks; ++c) {
    held += p.partial[row * p.chunks + c];
    ties += p.ties[row * p.chunks + c];
  }
  p.share[row] = ties > 0 ? static_cast<A>(kDecibelsPerNeper) * held / (p.maximum[row] * ties) : A(0);
}

template <typename T, int kCount, typename A = accumulate_t<T>>
__global__ void __launch_bounds__(kThreads, 2) gradient_kernel(MaskParams<A> p) {
  const int64_t b = blockIdx.x / p.chunks, chunk = blockIdx.x % p.chunks;
  for_chunk<kCount>(p, chunk, [&](int64_t i) {
    const auto mel = load<T, kCount>(p.mel, b * p.row() + i);
    A grad_mel[kCount] = {};
    for (int64_t s = 0; s < p.S; ++s) {
      const int64_t row = b * p.S + s, at = row * p.row() + i;
      const A maximum = p.maximum[row], threshold = maximum * p.ratio;
      const A share = p.grad_features ? p.share[row] : A(0);
      const A poison = p.grad_features && maximum != maximum ? maximum : A(0);
      const auto logits = load<T, kCount>(p.logits, at);
      Vector<T, kCount> to_masked{}, to_features{}, out;
      if (p.grad_masked) to_masked = load<T, kCount>(p.grad_masked, at);
      if (p.grad_features) to_features = load<T, kCount>(p.grad_features, at);
      int64_t f = i / p.frames, t = i - f * p.frames;
      for (int j = 0; j < kCount; ++j) {
        const A open = sigmoid(static_cast<A>(logits.values[j]));
        const A mask = mask_of(open, p.floor);
        const A value = static_cast<A>(mel.values[j]);
        const A masked = mask * value;
        A grad = static_cast<A>(to_masked.values[j]);
        if (masked >= p.amin) {
          grad += poison;
          if (masked >= threshold) {
            grad += static_cast<A>(kDecibelsPerNeper) * static_cast<A>(to_features.values[j]) /
                    (p.std[f] * masked);
          }
          if (masked == maximum) grad += share;
        }
        const A closed =
            odds_against(static_cast<A>(logits.values[j])) * open;  // 1 - open, to full precision
        out.values[j] = static_cast<T>(grad * value * ((A(1) - p.floor) * open * closed));
        grad_mel[j] += grad * mask;
        if (++t == p.frames) {
          t = 0;
          f = f + 1 < p.F ? f + 1 : f;
        }
      }
      store<T, kCount>(p.out_masked, at, out);
    }
    Vector<T, kCount> out;
    for (int j = 0; j < kCount; ++j) out.values[j] = static_cast<T>(grad_mel[j]);
    store<T, kCount>(p.out_other, b * p.row() + i, out);
  });
}

template <typename T, typename A>
bool can_group(const MaskParams<A>& p) {
  return falls_into_groups<T, kWidth>(
      p.row(), {p.logits, p.mel, p.grad_masked, p.grad_features, p.out_masked, p.out_other});
}

template <typename T, int kCount, typename A>
void launch_forward(const MaskParams<A>& p, cudaStream_t stream) {
  const unsigned int grid = exact_grid(p.B * p.S * p.chunks, "mel_mask");
  launch({"maximum_kernel", grid, kThreads, stream}, maximum_kernel<T, kCount>, p);
  launch({"features_kernel", grid, kThreads, stream}, features_kernel<T, kCount>, p);
}

template <typename T, int kCount, typename A>
void launch_backward(const MaskParams<A>& p, cudaStream_t stream) {
  const int64_t rows = p.B * p.S;
  if (p.grad_features) {
    launch({"held_kernel", exact_grid(rows * p.chunks, "mel_mask"), kThreads, stream}, held_kernel<T, kCount>,
           p);
    launch({"share_kernel", exact_grid((rows + kThreads - 1) / kThreads, "mel_mask"), kThreads, stream},
           share_kernel<A>, p);
  }
  launch({"gradient_kernel", exact_grid(p.B * p.chunks, "mel_mask"), kThreads, stream},
         gradient_kernel<T, kCount>, p);
}

/// `p` has been planned; `workspace` holds as many values as plan_chunks() returned.
template <typename T, typename A = accumulate_t<T>>
void launch_mel_mask(MaskParams<A> p, A* workspace, cudaStream_t stream) {
  p.use_workspace(workspace);
  can_group<T>(p) ? launch_forward<T, kWidth>(p, stream) : launch_forward<T, 1>(p, stream);
}

template <typename T, typename A = accumulate_t<T>>
void launch_mel_mask_backward(MaskParams<A> p, A* workspace, cudaStream_t stream) {
  p.use_workspace(workspace);
  can_group<T>(p) ? launch_backward<T, kWidth>(p, stream) : launch_backward<T, 1>(p, stream);
}

}  // namespace
}  // namespace task_aware
