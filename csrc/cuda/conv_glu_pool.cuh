#pragma once

// conv_glu_pool and its backward: formulas as csrc/cpu/glu_pool.cpp has them.
//
// Mapping: a thread has kTall x kWide positions at a time, all their channels in registers, so that a weight that it
// reads from shared memory serves all of them.
//   conv_glu_pool_kernel            a thread computes all channels of a pool
//   conv_glu_pool_backward_kernel   a warp takes two mel bands of 30 frames and those beside them, computes grad x, and
//                                   leaves what it adds to the gradients of these bands and the two around them
//   conv_glu_pool_join_kernel       adds these up
// Traffic: forward features read, out written; backward features and grad read, grad features written, and twice as
// much in sums between the two kernels. Nothing is as large as the convolution's output. The limit is arithmetic: 400
// products for each position of 16 channels, 800 in the backward.

#include <cstdint>

#include "common/accumulate.h"
#include "cuda/grid.h"
#include "cuda/launch.h"
#include "cuda/sigmoid.cuh"
#include "cuda/vector.cuh"

namespace task_aware {
namespace {

constexpr int kThreads = 128;
constexpr int kLanes = 32;
constexpr int kChannels = 16;  // at most, that fit the registers
constexpr int kFramesOfWarp = kLanes - 2;
/// Of a thread at once: mel bands and, in the forward, frames.
template <typename A>
constexpr int kTall = sizeof(A) == sizeof(float) ? 2 : 1;
template <typename A>
constexpr int kWide = sizeof(A) == sizeof(float) ? 2 : 1;
template <typename A>
constexpr int kSumRows = kTall<A> + 2;  // mel bands that those of grad x reach
template <typename A>
constexpr int kBlocks = sizeof(A) == sizeof(float) ? 3 : 2;  // of a multiprocessor

template <typename T>
struct ConvGluParams {
  using A = accumulate_t<T>;

  const T* features;
  const A *kernel, *shift, *weight, *bias;
  const T* grad;  // of the backward alone
  T* out;         // out or grad features
  A* sums;        // workspace of the backward
  int64_t B;
  int C, F, frames, p, n;

  __host__ __device__ int bands() const { return F / p; }
  __host__ __device__ int pooled_frames() const { return frames / n; }
  __host__ __device__ int pairs() const { return (F + kTall<A> - 1) / kTall<A>; }
  __host__ __device__ int tiles() const { return (frames + kFramesOfWarp - 1) / kFramesOfWarp; }
  int64_t workspace() const { return B * pairs() * kSumRows<A> * frames; }
};

/// In shared memory; zeros for the channels that there are not.
template <typename A>
struct Weights {
  static constexpr int kShift = 9, kBias = 10, kOfChannel = 12;

  A channel[kChannels][kOfChannel];  // the kernel, shift and bias
  A linear[kChannels][kChannels];

  template <typename T>
  __device__ void read(const ConvGluParams<T>& p) {
    for (int i = threadIdx.x; i < kChannels * kOfChannel; i += kThreads) {
      const int c = i / kOfChannel, k = i % kOfChannel;
      A value = A(0);
      if (c < p.C && k <= kBias)
        value = k < kShift ? p.kernel[9 * c + k] : k == kShift ? p.shift[c] : p.bias[c];
      channel[c][k] = value;
    }
    for (int i = threadIdx.x; i < kChannels * kChannels; i += kThreads) {
      const int c = i / kChannels, k = i % kChannels;
      linear[c][k] = c < p.C && k < p.C ? p.weight[c * p.C + k] : A(0);
    }
    __syncthreads();
  }
};

/// x, the convolution's output, at kHigh bands from f and kAcross frames from t on, which may lie outside.
template <int kHigh, int kAcross, typename T, typename A = accumulate_t<T>>
__device__ __forceinline__ void convolve(const ConvGluParams<T>& p, const Weights<A>& weights, int64_t b,
                                         int f, int t, A (&x)[kHigh * kAcross][kChannels]) {
  A patch[kHigh + 2][kAcross + 2];
  const T* const clip = p.features + b * p.F * p.frames;
#pragma unroll
  for (int i = 0; i < kHigh + 2; ++i) {
#pragma unroll
    for (int j = 0; j < kAcross + 2; ++j) {
      const int band = f + i - 1, frame = t + j - 1;
      const bool inside = band >= 0 && band < p.F && frame >= 0 && frame < p.frames;
      patch[i][j] = inside ? static_cast<A>(clip[int64_t{band} * p.frames + frame]) : A(0);
    }
  }
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    A row[Weights<A>::kOfChannel];
    load_groups(weights.channel[c], row);
#pragma unroll
    for (int k = 0; k < kHigh * kAcross; ++k) {
      x[k][c] = row[Weights<A>::kShift];
#pragma unroll
      for (int i = 0; i < 9; ++i) x[k][c] += row[i] * patch[k / kAcross + i / 3][k % kAcross + i % 3];
    }
  }
}

/// bias + weight x of a channel.
template <typename A>
__device__ __forceinline__ A linear_map(A bias, const A (&row)[kChannels], const A (&x)[kChannels]) {
  A sum = bias;
#pragma unroll
  for (int k = 0; k < kChannels; ++k) sum += row[k] * x[k];
  return sum;
}

template <typename T>
__global__ void __launch_bounds__(kThreads, kBlocks<accumulate_t<T>>)
    conv_glu_pool_kernel(ConvGluParams<T> p) {
  using A = accumulate_t<T>;
  constexpr int kAcross = kWide<A>, kPositions = kTall<A> * kAcross;
  __shared__ Weights<A> weights;
  weights.read(p);
  const uint32_t pool = blockIdx.x * kThreads + threadIdx.x;
  const uint32_t pooled_frames = p.pooled_frames(), bands = p.bands();
  const uint32_t item = pool / pooled_frames / bands;
  const bool mine = item < p.B;
  const int64_t b = mine ? item : 0;
  const int i = static_cast<int>(pool / pooled_frames % bands), j = static_cast<int>(pool % pooled_frames);
  A sums[kChannels] = {};
  for (int r = 0; r < p.p; r += kTall<A>) {
    for (int q = 0; q < p.n; q += kAcross) {
      A x[kPositions][kChannels];
      __syncwarp();  // or else nvcc keeps all weights in registers
      convolve<kTall<A>, kAcross>(p, weights, b, i * p.p + r, j * p.n + q, x);
      __syncwarp();  // and here loads too much ahead
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        A row[kChannels];
        load_groups(weights.linear[c], row);
#pragma unroll
        for (int k = 0; k < kPositions; ++k) {
          const A value = linear_map(weights.channel[c][Weights<A>::kBias], row, x[k]) * sigmoid(x[k][c]);
          if (r + k / kAcross < p.p && q + k % kAcross < p.n) sums[c] += value;
        }
      }
    }
  }
  const A scale = A(1) / static_cast<A>(p.p * p.n);
  const int64_t channel = int64_t{p.bands()} * p.pooled_frames();
  T* const out = p.out + b * p.C * channel + int64_t{i} * p.pooled_frames() + j;
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    if (mine && c < p.C) out[c * channel] = static_cast<T>(scale * sums[c]);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads, kBlocks<accumulate_t<T>>)
    conv_glu_pool_backward_kernel(ConvGluParams<T> p) {
  using A = accumulate_t<T>;
  __shared__ Weights<A> weights;
  weights.read(p);
  const uint32_t warp = blockIdx.x * (kThreads / kLanes) + threadIdx.x / kLanes;
  const uint32_t tiles = p.tiles(), pairs = p.pairs();
  const int64_t b = warp / tiles / pairs;
  if (b >= p.B) return;
  const int lane = static_cast<int>(threadIdx.x) % kLanes, pair = static_cast<int>(warp / tiles % pairs);
  const int f = kTall<A> * pair, t = static_cast<int>(warp % tiles) * kFramesOfWarp - 1 + lane;
  A x[kTall<A>][kChannels], grad_x[kTall<A>][kChannels] = {};
  convolve<kTall<A>, 1>(p, weights, b, f, t, x);

  const A scale = A(1) / static_cast<A>(p.p * p.n);
  const int64_t channel = int64_t{p.bands()} * p.pooled_frames();
  const T* grads[kTall<A>];
  bool used[kTall<A>];  // by a pool
#pragma unroll
  for (int k = 0; k < kTall<A>; ++k) {
    used[k] = f + k < p.bands() * p.p && t >= 0 && t < p.pooled_frames() * p.n;
    grads[k] = p.grad + b * p.C * channel;
    if (used[k]) grads[k] += int64_t{(f + k) / p.p} * p.pooled_frames() + t / p.n;
  }
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    A row[kChannels];
    load_groups(weights.linear[c], row);
#pragma unroll
    for (int k = 0; k < kTall<A>; ++k) {
      const A gate = sigmoid(x[k][c]);
      const A grad = used[k] && c < p.C ? scale * static_cast<A>(grads[k][c * channel]) * gate : A(0);
      const A linear = linear_map(weights.channel[c][Weights<A>::kBias], row, x[k]);
      grad_x[k][c] += grad * linear * (A(1) - gate);
#pragma unroll
      for (int other = 0; other < kChannels; ++other) grad_x[k][other] += row[other] * grad;
    }
  }

  __syncwarp();                    // as above
  A reached[kSumRows<A>][3] = {};  // by this frame: mel bands from f - 1 on, frames from t - 1 on
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    A row[Weights<A>::kOfChannel];
    load_groups(weights.channel[c], row);
#pragma unroll
    for (int k = 0; k < kTall<A>; ++k) {
      const A value = used[k] ? grad_x[k][c] : A(0);
#pragma unroll
      for (int i = 0; i < 9; ++i) reached[k + i / 3][i % 3] += row[i] * value;
    }
  }
  A* const sums = p.sums + (b * p.pairs() + pair) * kSumRows<A> * p.frames + t;
  const bool mine = lane > 0 && lane <= kFramesOfWarp && t < p.frames;
#pragma unroll
  for (int i = 0; i < kSumRows<A>; ++i) {
    const A before = __shfl_up_sync(0xffffffffu, reached[i][2], 1);
    const A after = __shfl_down_sync(0xffffffffu, reached[i][0], 1);
    if (mine) sums[int64_t{i} * p.frames] = before + reached[i][1] + after;
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) conv_glu_pool_join_kernel(ConvGluParams<T> p) {
  using A = accumulate_t<T>;
  const uint32_t index = blockIdx.x * kThreads + threadIdx.x, frames = p.frames, F = p.F;
  const int64_t b = index / frames / F;
  if (b >= p.B) return;
  const int f = static_cast<int>(index / frames % F), pair = f / kTall<A>;
  const A* const clip = p.sums + b * p.pairs() * kSumRows<A> * p.frames + index % frames;
  const auto sum_of = [&](int pair, int row) { return clip[(int64_t{pair} * kSumRows<A> + row) * p.frames]; };
  A sum = sum_of(pair, f % kTall<A> + 1);
  if (f % kTall<A> == 0 && pair > 0) sum += sum_of(pair - 1, kSumRows<A> - 1);
  if (f % kTall<A> == kTall<A> - 1 && pair + 1 < p.pairs()) sum += sum_of(pair + 1, 0);
  p.out[index] = static_cast<T>(sum);
}

/// Where there are pools.
template <bool kBackward, typename T>
void launch_conv_glu_pool(const ConvGluParams<T>& p, cudaStream_t stream) {
  TASK_AWARE_CHECK(p.C <= kChannels, "conv_glu_pool: got ", p.C, " channels, expected at most ", kChannels,
                   " on CUDA.");
  const auto blocks = [](int64_t threads) {  // which are numbered in 32 bits
    exact_grid(threads + kThreads, "conv_glu_pool");
    return block_count(threads, kThreads, threads);
  };
  if constexpr (kBackward) {
    launch({"conv_glu_pool_backward_kernel", blocks(p.B * p.pairs() * p.tiles() * kLanes), kThreads, stream},
           conv_glu_pool_backward_kernel<T>, p);
    launch({"conv_glu_pool_join_kernel", blocks(p.B * p.F * p.frames), kThreads, stream},
           conv_glu_pool_join_kernel<T>, p);
  } else {
    launch({"conv_glu_pool_kernel", blocks(p.B * p.bands() * p.pooled_frames()), kThreads, stream},
           conv_glu_pool_kernel<T>, p);
  }
}

}  // namespace
}  // namespace task_aware
