#pragma once

// glu_pool: out[b,c,i,j] = mean over 0 <= r < p, 0 <= q < n of linear[b,c,ip+r,jn+q] * sigmoid(x[b,c,ip+r,jn+q])
//           linear[b,c,f,t] = bias[c] + sum over k of weight[c,k] x[b,k,f,t]
//           x [B,C,F,T], weight [C,C], bias [C]; pool of p mel bands and n frames; out [B,C,F/p,T/n], rounded down
// backward: with g = grad[b,c,f/p,t/n] / (p n), of positions that no pool reaches 0,
//           grad x[k] = g[k] linear[k] sigmoid'(x[k]) + sum over c of weight[c,k] g[c] sigmoid(x[c])
//
// Here for float64, before sm_80, and for pools too large for the blocks of glu_pool_mma.cuh.
//
// Mapping: one block per (b, i) and kTile positions, whose x of all channels lies in shared memory; a thread multiplies
// kRows channels by kColumns positions in registers, and a block has as many threads as its channels need. The linear
// map is never written; the backward computes it again.
// The tile is as wide as lets 128 channels of the backward fit 64 KB, which every GPU since sm_75 has.
// Traffic: forward x read, out written; backward x and grad read, grad x written; the matrix from the L1 cache. At 16
// channels that is the limit, at 128 the 2 C (backward 4 C) operations of each value are: for kRows * kColumns of them
// a thread reads kRows + kColumns values, 16 bytes at once.

#include "common/accumulate.h"
#include "cuda/grid.h"
#include "cuda/launch.h"
#include "cuda/vector.cuh"

namespace task_aware {
namespace {

constexpr int kMostThreads = 256;
constexpr int kColumns = 4;
constexpr int kMostChannels = 128;

template <typename A>
constexpr int kTile = 256 / sizeof(A);
template <typename A>
constexpr int kColumnThreads = kTile<A> / kColumns;

/// Blocks of a multiprocessor: as many as have the registers for their products.
template <typename T>
constexpr int kBlocks = sizeof(accumulate_t<T>) == sizeof(float) ? 2 : 1;

template <typename T>
struct GluParams {
  using A = accumulate_t<T>;

  const T* x;
  const A* weight;      // [C,C]
  const A* transposed;  // [C,C], weight[k,c]; of launch_glu_pool alone
  uint4* fragments;     // of the weight, which launch_glu_pool_mma writes
  const A* bias;
  const T* grad;  // of the backward alone
  T* out;         // out or grad x
  int64_t B;
  int C, F, frames, p, n;

  __host__ __device__ int bands() const { return F / p; }
  __host__ __device__ int pooled_frames() const { return frames / n; }
  __host__ __device__ int pools() const { return bands() * pooled_frames(); }
  __host__ __device__ int tile() const { return kTile<A> / n * n; }
  __host__ __device__ int tiles() const { return (pooled_frames() * n + tile() - 1) / tile(); }
  size_t shared_bytes(bool backward) const { return (backward ? 2 : 1) * C * kTile<A> * sizeof(A); }
};

/// What a block works on, and a thread's part of it: channels `row + k` for k below kRows, positions column .. + 3.
template <typename T>
struct Place {
  int64_t b;
  int i, t, count, row, column;

  template <int kRows>
  static __device__ Place of(const GluParams<T>& p) {
    const int tiles = p.tiles();
    const int64_t band = blockIdx.x / tiles;
    Place place;
    place.b = band / p.bands();
    place.i = static_cast<int>(band % p.bands());
    place.t = static_cast<int>(blockIdx.x % tiles) * p.tile();
    place.count = min(p.tile(), p.pooled_frames() * p.n - place.t);
    place.row = threadIdx.x / kColumnThreads<accumulate_t<T>> * kRows;
    place.column = threadIdx.x % kColumnThreads<accumulate_t<T>> * kColumns;
    return place;
  }
};

template <typename A>
__device__ __forceinline__ A sigmoid(A x) {
  return A(1) / (A(1) + exp(-x));
}

/// The tile of x at mel band f, zeros beyond its positions.
template <typename T, typename A = accumulate_t<T>>
__device__ void read_tile(const GluParams<T>& p, const Place<T>& at, int f, A* x) {
  const T* const first = p.x + (at.b * p.C * p.F + f) * p.frames + at.t;
#pragma unroll 4
  for (int i = threadIdx.x; i < p.C * kTile<A>; i += blockDim.x) {
    const int c = i / kTile<A>, t = i % kTile<A>;
    x[i] = t < at.count ? static_cast<A>(first[int64_t{c} * p.F * p.frames + t]) : A(0);
  }
}

/// sum[r][k] = sum over c of matrix[c, row + r] tile[c, column + k], for rows below C; kWhole: all are, in whole groups.
template <bool kWhole, int kRows, typename A>
__device__ __forceinline__ void multiply(const A* matrix, const A* tile, int C, int row, int column,
                                         A (&sum)[kRows][kColumns]) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int k = 0; k < kColumns; ++k) sum[r][k] = A(0);
  }
#pragma unroll 2
  for (int c = 0; c < C; ++c) {
    A values[kColumns], weights[kRows];
    load_groups(tile + c * kTile<A> + column, values);
    if constexpr (kWhole) {
      load_groups(matrix + c * C + row, weights);
    } else {
#pragma unroll
      for (int r = 0; r < kRows; ++r) weights[r] = row + r < C ? matrix[c * C + row + r] : A(0);
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int k = 0; k < kColumns; ++k) sum[r][k] += weights[r] * values[k];
    }
  }
}

/// visit(i, value) for a thread's values, i the place of each in a tile.
template <int kRows, typename T, typename A, typename Visit>
__device__ __forceinline__ void for_mine(const GluParams<T>& p, const Place<T>& at,
                                         const A (&values)[kRows][kColumns], Visit visit) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (at.row + r < p.C) {
#pragma unroll
      for (int k = 0; k < kColumns; ++k) visit((at.row + r) * kTile<A> + at.column + k, values[r][k]);
    }
  }
}

template <bool kWhole, int kRows, typename T>
__global__ void __launch_bounds__(kMostThreads, kBlocks<T>) glu_pool_kernel(GluParams<T> p) {
  using A = accumulate_t<T>;
  auto* const x = static_cast<A*>(dynamic_shared_memory());
  const auto at = Place<T>::template of<kRows>(p);
  A pooled[kRows][kColumns] = {};
  for (int f = at.i * p.p; f < (at.i + 1) * p.p; ++f) {
    read_tile(p, at, f, x);
    __syncthreads();
    A linear[kRows][kColumns];
    multiply<kWhole>(p.transposed, x, p.C, at.row, at.column, linear);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (at.row + r < p.C) {
#pragma unroll
        for (int k = 0; k < kColumns; ++k) {
          const A gate = sigmoid(x[(at.row + r) * kTile<A> + at.column + k]);
          pooled[r][k] += (linear[r][k] + p.bias[at.row + r]) * gate;
        }
      }
    }
    __syncthreads();
  }
  for_mine(p, at, pooled, [&](int i, A sum) { x[i] = sum; });
  __syncthreads();
  const int n_out = at.count / p.n;
  const A scale = A(1) / static_cast<A>(p.p * p.n);
  for (int i = threadIdx.x; i < p.C * n_out; i += blockDim.x) {
    const int c = i / n_out, j = i % n_out;
    A sum = 0;
    for (int q = 0; q < p.n; ++q) sum += x[c * kTile<A> + j * p.n + q];
    p.out[((at.b * p.C + c) * p.bands() + at.i) * p.pooled_frames() + at.t / p.n + j] =
        static_cast<T>(scale * sum);
  }
}

template <bool kWhole, int kRows, typename T>
__global__ void __launch_bounds__(kMostThreads, kBlocks<T>) glu_pool_backward_kernel(GluParams<T> p) {
  using A = accumulate_t<T>;
  auto* const x = static_cast<A*>(dynamic_shared_memory());
  A* const through_linear = x + p.C * kTile<A>;
  const auto at = Place<T>::template of<kRows>(p);
  const A scale = A(1) / static_cast<A>(p.p * p.n);
  for (int f = at.i * p.p; f < (at.i + 1) * p.p; ++f) {
    read_tile(p, at, f, x);
    __syncthreads();
    A value[kRows][kColumns];
    multiply<kWhole>(p.transposed, x, p.C, at.row, at.column, value);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int c = at.row + r;
      if (c < p.C) {
        const T* const grads =
            p.grad + ((at.b * p.C + c) * p.bands() + at.i) * p.pooled_frames() + at.t / p.n;
#pragma unroll
        for (int k = 0; k < kColumns; ++k) {
          const int t = at.column + k;
          const A gate = sigmoid(x[c * kTile<A> + t]);
          const A grad = t < at.count ? scale * static_cast<A>(grads[t / p.n]) * gate : A(0);
          through_linear[c * kTile<A> + t] = grad;
          value[r][k] = grad * (value[r][k] + p.bias[c]) * (A(1) - gate);
        }
      }
    }
    __syncthreads();
    for_mine(p, at, value, [&](int i, A grad) { x[i] = grad; });
    multiply<kWhole>(p.weight, through_linear, p.C, at.row, at.column, value);
    for_mine(p, at, value, [&](int i, A grad) { x[i] += grad; });
    __syncthreads();
    T* const first = p.out + (at.b * p.C * p.F + f) * p.frames + at.t;
    for (int i = threadIdx.x; i < p.C * kTile<A>; i += blockDim.x) {
      const int c = i / kTile<A>, t = i % kTile<A>;
      if (t < at.count) first[int64_t{c} * p.F * p.frames + t] = static_cast<T>(x[i]);
    }
    __syncthreads();
  }
}

/// Where `backward`, `out` has been filled with zeros if there are positions that no pool reaches.
template <bool kBackward, typename T>
void launch_glu_pool(const GluParams<T>& p, cudaStream_t stream) {
  using A = accumulate_t<T>;
  const size_t bytes = p.shared_bytes(kBackward);
  TASK_AWARE_CHECK(p.C <= kMostChannels, "glu_pool: got ", p.C, " channels, expected at most ", kMostChannels,
                   " on CUDA; pass backend='reference'.");
  const unsigned int blocks = exact_grid(p.B * p.bands() * p.tiles(), "glu_pool");
  const auto run = [&]<bool kWhole, int kRows>() {
    const unsigned int threads = (p.C + kRows - 1) / kRows * kColumnThreads<A>;
    if constexpr (kBackward) {
      launch({"glu_pool_backward_kernel", blocks, threads, stream, bytes},
             glu_pool_backward_kernel<kWhole, kRows, T>, p);
    } else {
      launch({"glu_pool_kernel", blocks, threads, stream, bytes}, glu_pool_kernel<kWhole, kRows, T>, p);
    }
  };
  const auto run_rows = [&]<int kRows>() {
    if (p.C % kRows == 0 && falls_into_groups<A, kGroupBytes / sizeof(A)>(p.C, {p.weight, p.transposed})) {
      run.template operator()<true, kRows>();
    } else {
      run.template operator()<false, kRows>();
    }
  };
  constexpr int kFewRows = 4, kFewChannels = kMostThreads / kColumnThreads<A> * kFewRows;
  if (p.C <= kFewChannels) return run_rows.template operator()<kFewRows>();
  if constexpr (kFewChannels < kMostChannels) run_rows.template operator()<2 * kFewRows>();
}

}  // namespace
}  // namespace task_aware
