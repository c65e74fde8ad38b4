#pragma once

// depthwise_prelu and its backward: formulas as csrc/cpu/depthwise_prelu.cpp has them.
//
// Mapping: a warp takes a row (b,c), or a segment of one that is longer than kSegment. It copies the row to shared
// memory, and the result back, in groups of 16 bytes wherever the row begins. In between its lanes take neighbouring
// frames, so that no dilation makes bank conflicts. What other segments hold it reads where it lies.
//   depthwise_prelu_kernel            y
//   depthwise_prelu_backward_kernel   grad x, and the row's part of the gradients of weight, bias and slope
//   depthwise_prelu_sums_kernel       adds the parts of each channel, always in the same order
// Traffic: forward x read, y written; backward x and grad y read, grad x written, and five numbers for each row.

#include <algorithm>
#include <cstdint>

#include "common/accumulate.h"
#include "cuda/block_reduce.cuh"
#include "cuda/grid.h"
#include "cuda/launch.h"
#include "cuda/rows.cuh"

namespace task_aware {
namespace {

constexpr int kWarps = 4;
constexpr int kBackwardBlocks = 4;  // of a multiprocessor, for which ptxas need not spill
constexpr int kWarpsOfSums = 8;
constexpr int kFramesAtOnce = 4;
constexpr int kSums = 5;  // of a channel: three of the weight, one of the bias, one of the slope

template <typename A>
constexpr int kSegment = 4096 / sizeof(A);  // frames, so that a block's fit the 48 KB that need no asking

template <typename T>
struct DepthwiseParams {
  using A = accumulate_t<T>;

  const T* x;
  const A *weight, *bias, *slope;
  const T* grad;                            // grad y, of the backward alone
  T* out;                                   // y or grad x
  A* parts;                                 // workspace of the backward
  A *grad_weight, *grad_bias, *grad_slope;  // of the backward alone
  int64_t rows;                             // B*C
  int C, frames;
  int64_t dilation;

  int segments() const { return (frames + kSegment<A> - 1) / kSegment<A>; }
  int64_t workspace() const { return segments() * rows * kSums; }
  /// Of shared memory, for a row that may begin anywhere in a group.
  __host__ __device__ int row_bytes() const {
    const int length = frames < kSegment<A> ? frames : kSegment<A>;
    return (length * static_cast<int>(sizeof(T)) + 2 * kGroupBytes - 1) / kGroupBytes * kGroupBytes;
  }
  /// x or y, or grad y, of a warp; in the backward also v where that is wider than grad y.
  __host__ __device__ int warp_bytes(bool backward) const {
    return row_bytes() * (backward && sizeof(T) < sizeof(A) ? 2 + sizeof(A) / sizeof(T) : 2);
  }
};

/// A warp's frames: `count` from `first` on of a row.
template <bool kWhole, typename T>
struct Stretch {
  uint32_t row;
  int c, first, count, lane;
  bool used;
  unsigned char* shared;  // the warp's

  __device__ Stretch(const DepthwiseParams<T>& p, int warp_bytes) {
    const int warp = static_cast<int>(threadIdx.x) / kLanes;
    row = blockIdx.x * kWarps + warp;
    c = static_cast<int>(row % static_cast<uint32_t>(p.C));
    first = kWhole ? 0 : static_cast<int>(blockIdx.y) * kSegment<accumulate_t<T>>;
    count = kWhole ? p.frames : min(p.frames - first, kSegment<accumulate_t<T>>);
    lane = static_cast<int>(threadIdx.x) % kLanes;
    used = row < p.rows;
    shared = static_cast<unsigned char*>(dynamic_shared_memory()) + warp * warp_bytes;
  }
};

/// out[t] = compute(t) for a lane's frames, several of which are computed before the first is stored.
template <typename T, typename Compute>
__device__ __forceinline__ void for_frames(T* out, int count, int lane, Compute compute) {
#pragma unroll 1
  for (int begin = lane; begin < count; begin += kFramesAtOnce * kLanes) {
    T values[kFramesAtOnce];
#pragma unroll
    for (int i = 0; i < kFramesAtOnce; ++i) values[i] = compute(begin + i * kLanes);
#pragma unroll
    for (int i = 0; i < kFramesAtOnce; ++i) {
      if (const int t = begin + i * kLanes; t < count) out[t] = values[i];
    }
  }
}

/// x of a channel: a warp's stretch in shared memory, zeros outside of the row.
template <bool kWhole, typename T>
struct Frames {
  using A = accumulate_t<T>;

  const T* row;     // frame 0 of the row
  const T* shared;  // the first frame of the stretch
  int first, count, frames;

  __device__ __forceinline__ A at(int t) const {
    if (static_cast<unsigned int>(t - first) < static_cast<unsigned int>(count)) {
      return static_cast<A>(shared[t - first]);
    }
    if constexpr (!kWhole) {
      if (static_cast<unsigned int>(t) < static_cast<unsigned int>(frames)) return static_cast<A>(row[t]);
    }
    return A(0);
  }
};

/// What belongs to a channel.
template <typename A>
struct Channel {
  A weight[3], bias, slope;
  int dilation;  // beyond the row is all alike

  template <typename T>
  __device__ Channel(const DepthwiseParams<T>& p, int c)
      : weight{p.weight[3 * c], p.weight[3 * c + 1], p.weight[3 * c + 2]},
        bias(p.bias[c]),
        slope(*p.slope),
        dilation(static_cast<int>(min(p.dilation, int64_t{p.frames}))) {}

  /// u at t, of x at the three frames, which it leaves in `taps`.
  template <bool kWhole, typename T>
  __device__ __forceinline__ A convolve(const Frames<kWhole, T>& x, int t, A (&taps)[3]) const {
    A u = bias;
#pragma unroll
    for (int k = 0; k < 3; ++k) {
      taps[k] = x.at(t + (k - 1) * dilation);
      u += weight[k] * taps[k];
    }
    return u;
  }
};

template <bool kWhole, typename T>
__global__ void __launch_bounds__(kWarps* kLanes) depthwise_prelu_kernel(DepthwiseParams<T> p) {
  using A = accumulate_t<T>;
  const Stretch<kWhole, T> my(p, p.warp_bytes(false));
  if (!my.used) return;
  const Channel<A> channel(p, my.c);
  const T* const row = p.x + int64_t{my.row} * p.frames;
  T* const out = p.out + int64_t{my.row} * p.frames + my.first;
  T* const x = place_of(row + my.first, my.shared);
  T* const y = place_of(out, my.shared + p.row_bytes());
  RowReader<T> reader(row + my.first, x, my.count, my.lane);
  read_rows(reader);
  __syncwarp();
  const Frames<kWhole, T> frames{row, x, my.first, my.count, p.frames};
  for_frames(y, my.count, my.lane, [&](int t) {
    A taps[3];
    const A u = channel.convolve(frames, my.first + t, taps);
    return static_cast<T>(u > A(0) ? u : channel.slope * u);
  });
  __syncwarp();
  write_row(out, y, my.count, my.lane);
}

template <bool kWhole, typename T>
__global__ void __launch_bounds__(kWarps* kLanes, kBackwardBlocks)
    depthwise_prelu_backward_kernel(DepthwiseParams<T> p) {
  using A = accumulate_t<T>;
  const Stretch<kWhole, T> my(p, p.warp_bytes(true));
  if (!my.used) return;
  const Channel<A> channel(p, my.c);
  const int64_t begin = int64_t{my.row} * p.frames;
  const T *const x_row = p.x + begin, *const grad_row = p.grad + begin;
  T* const out = p.out + begin + my.first;
  T* const x = place_of(x_row + my.first, my.shared);
  T* const grad = place_of(grad_row + my.first, my.shared + p.row_bytes());
  A* v;
  if constexpr (sizeof(T) == sizeof(A)) {
    v = grad;  // each of which is read by the lane that replaces it
  } else {
    v = reinterpret_cast<A*>(my.shared + 2 * p.row_bytes());
  }
  RowReader<T> x_reader(x_row + my.first, x, my.count, my.lane);
  RowReader<T> grad_reader(grad_row + my.first, grad, my.count, my.lane);
  read_rows(x_reader, grad_reader);
  __syncwarp();

  const Frames<kWhole, T> frames{x_row, x, my.first, my.count, p.frames};
  A sums[kSums] = {};
  for_frames(v, my.count, my.lane, [&](int t) {
    A taps[3];
    const A u = channel.convolve(frames, my.first + t, taps);
    const A grad_y = t < my.count ? static_cast<A>(grad[t]) : A(0);
    const A value = u > A(0) ? grad_y : channel.slope * grad_y;
#pragma unroll
    for (int k = 0; k < 3; ++k) sums[k] += value * taps[k];
    sums[3] += value;
    sums[4] += u > A(0) ? A(0) : grad_y * u;
    return value;
  });
  A* const parts = p.parts + (blockIdx.y * p.rows + my.row) * kSums;
#pragma unroll
  for (int k = 0; k < kSums; ++k) {
    const A sum = warp_reduce(sums[k], [](A a, A b) { return a + b; });
    if (my.lane == k) parts[k] = sum;
  }
  __syncwarp();

  const auto v_at = [&](int t) -> A {
    if (static_cast<unsigned int>(t - my.first) < static_cast<unsigned int>(my.count)) return v[t - my.first];
    if constexpr (!kWhole) {
      if (static_cast<unsigned int>(t) < static_cast<unsigned int>(p.frames)) {
        A taps[3];  // none from shared memory, where grad x takes the place of x
        const A u = channel.convolve(Frames<false, T>{x_row, nullptr, 0, 0, p.frames}, t, taps);
        const A grad_y = static_cast<A>(grad_row[t]);
        return u > A(0) ? grad_y : channel.slope * grad_y;
      }
    }
    return A(0);
  };
  T* const grad_x = place_of(out, my.shared);
  for_frames(grad_x, my.count, my.lane, [&](int t) {
    A sum = A(0);
#pragma unroll
    for (int k = 0; k < 3; ++k)
      sum += channel.weight[2 - k] * v_at(my.first + t + (k - 1) * channel.dilation);
    return static_cast<T>(sum);
  });
  __syncwarp();
  write_row(out, grad_x, my.count, my.lane);
}

template <typename T>
__global__ void __launch_bounds__(kWarpsOfSums* kLanes)
    depthwise_prelu_sums_kernel(DepthwiseParams<T> p, int64_t parts) {
  using A = accumulate_t<T>;
  __shared__ A shared[kWarpsOfSums][kLanes];
  const int lane = static_cast<int>(threadIdx.x) % kLanes, warp = static_cast<int>(threadIdx.x) / kLanes;
  const int64_t sums = int64_t{p.C} * kSums, mine = int64_t{blockIdx.x} * kLanes + lane;
  A sum = A(0);
  if (mine < sums) {
#pragma unroll 4
    for (int64_t part = warp; part < parts; part += kWarpsOfSums) sum += p.parts[part * sums + mine];
  }
  shared[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || mine >= sums) return;
#pragma unroll
  for (int other = 1; other < kWarpsOfSums; ++other) sum += shared[other][lane];
  const int64_t c = mine / kSums;
  const int k = static_cast<int>(mine % kSums);
  (k < 3 ? p.grad_weight[3 * c + k] : k == 3 ? p.grad_bias[c] : p.grad_slope[c]) = sum;
}

/// Of tensors with elements.
template <bool kBackward, typename T>
void launch_depthwise_prelu(const DepthwiseParams<T>& p, cudaStream_t stream) {
  exact_grid(p.rows, "depthwise_prelu");  // rows are numbered in 32 bits
  const dim3 grid = exact_grid((p.rows + kWarps - 1) / kWarps, p.segments(), "depthwise_prelu");
  const size_t bytes = kWarps * p.warp_bytes(kBackward);
  const bool whole = p.segments() == 1;
  if constexpr (kBackward) {
    launch({"depthwise_prelu_backward_kernel", grid, kWarps * kLanes, stream, bytes},
           whole ? depthwise_prelu_backward_kernel<true, T> : depthwise_prelu_backward_kernel<false, T>, p);
    launch({"depthwise_prelu_sums_kernel", block_count(int64_t{p.C} * kSums, kLanes), kWarpsOfSums * kLanes,
            stream},
           depthwise_prelu_sums_kernel<T>, p, p.segments() * p.rows / p.C);
  } else {
    launch({"depthwise_prelu_kernel", grid, kWarps * kLanes, stream, bytes},
           whole ? depthwise_prelu_kernel<true, T> : depthwise_prelu_kernel<false, T>, p);
  }
}

}  // namespace
}  // namespace task_aware
