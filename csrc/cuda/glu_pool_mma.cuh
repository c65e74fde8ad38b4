#pragma once

// glu_pool (glu_pool.cuh has its formulas) on tensor cores, for float32 and bfloat16 from sm_80 on.
//
// Numbers: products as tensor_core.cuh has them; the backward rounds g sigmoid(x) to bfloat16 for its product.
//
// Mapping: a block works on kColumns positions, which are whole pools of a clip, in the order of [F/p, T/n]; of the
// columns of a pool those of one mel band lie side by side, between those of the neighbouring pools. A warp multiplies
// 16 kRowTiles rows by 32 columns, a block has as many warps as that takes. Everything else goes by columns: a thread
// reads, gates and writes its column of x, every blockDim.x / kColumns-th channel. x lies in shared memory in words of
// the tensor core, so in bfloat16 of two neighbouring channels; kStride spreads a fragment over all banks.
// Traffic: x read, out written (backward x and grad read, grad x written); the matrix, in the order of its fragments,
// from the L1 cache; shared memory as tests/cuda_host/test_counts.py counts it.

#include <cstdint>

#include "cuda/approximate.cuh"
#include "cuda/glu_pool.cuh"
#include "cuda/tensor_core.cuh"

namespace task_aware {
namespace {

constexpr int kWarpColumns = 32;

/// Blocks of a multiprocessor: as many as have the registers.
template <typename T>
constexpr int kBlocksAtOnce = sizeof(T) == sizeof(float) ? 2 : 3;

/// Of a row of shared memory, in words: eight more, and the rows of a fragment lie in different banks.
template <int kColumns>
constexpr int kStride = kColumns + 8;

template <typename T>
__device__ __forceinline__ float gate(float x) {
  if constexpr (sizeof(T) == sizeof(float)) {
    return sigmoid(x);
  } else {
    constexpr float kLog2E = 1.44269504f;
    return approximate_reciprocal(1 + approximate_exp2(-kLog2E * x));
  }
}

/// A block's part of the work, and a thread's column of it.
template <typename T, int kColumns>
struct Columns {
  int64_t b;
  int pools, width, first;  // of a whole block, their columns within one mel band, and the block's first pool
  int column, pool, position;  // the thread's column, its pool, and its place in a channel's [F,T]
  int channel, channels;       // the thread's first channel, or word of x, and how far it is to its next
  bool used;

  static __host__ __device__ int pools_of_block(const GluParams<T>& p) { return kColumns / (p.p * p.n); }
  static __host__ __device__ int blocks_of_clip(const GluParams<T>& p) {
    return (p.pools() + pools_of_block(p) - 1) / pools_of_block(p);
  }

  explicit __device__ Columns(const GluParams<T>& p) {
    pools = pools_of_block(p);
    width = pools * p.n;
    const int block = static_cast<int>(blockIdx.x), blocks = blocks_of_clip(p);
    const int thread = static_cast<int>(threadIdx.x);
    b = block / blocks;
    first = block % blocks * pools;
    column = thread % kColumns;
    channel = thread / kColumns;
    channels = static_cast<int>(blockDim.x) / kColumns;
    const int band = column / width;
    pool = first + column % width / p.n;
    used = band < p.p && pool < p.pools();
    position =
        (pool / p.pooled_frames() * p.p + band) * p.frames + pool % p.pooled_frames() * p.n + column % p.n;
  }
};

/// x of the block's columns, zeros beyond what there is.
template <typename T, int kColumns>
__device__ __forceinline__ void read_words(const GluParams<T>& p, const Columns<T, kColumns>& at, int words,
                                           uint32_t* x) {
  using Core = TensorCore<T>;
  const int64_t channel = int64_t{p.F} * p.frames;
  const T* const first = p.x + at.b * p.C * channel + at.position;
#pragma unroll 8
  for (int w = at.channel; w < words; w += at.channels) {
    float values[Core::kPerWord];
#pragma unroll
    for (int k = 0; k < Core::kPerWord; ++k) {
      const int c = w * Core::kPerWord + k;
      values[k] = at.used && c < p.C ? static_cast<float>(first[c * channel]) : 0.0f;
    }
    x[w * kStride<kColumns> + at.column] = Core::word(values);
  }
}

/// A warp's sums, in the order of fragments.
template <int kRowTiles>
using Sums = float[kRowTiles][kWarpColumns / 8][4];

template <int kColumns>
__device__ __forceinline__ int first_tile_of_warp(int row_tiles) {
  return threadIdx.x / kLanes / (kColumns / kWarpColumns) * row_tiles;
}
template <int kColumns>
__device__ __forceinline__ int first_column_of_warp() {
  return threadIdx.x / kLanes % (kColumns / kWarpColumns) * kWarpColumns;
}

/// sums += matrix · x
template <typename T, int kColumns, int kRowTiles>
__device__ __forceinline__ void multiply(const uint4* matrix, const MatrixTiles& tiles, const uint32_t* x,
                                         Sums<kRowTiles>& sums) {
  using Core = TensorCore<T>;
  const int lane = threadIdx.x % kLanes;
  const uint32_t* const words =
      x + lane % 4 * kStride<kColumns> + first_column_of_warp<kColumns>() + lane / 4;
  const uint4* const rows = matrix + first_tile_of_warp<kColumns>(kRowTiles) * tiles.steps * kLanes + lane;
#pragma unroll(Core::kStepsAtOnce)
  for (int step = 0; step < tiles.steps; ++step) {
    decltype(Core::split(uint4{})) a[kRowTiles];
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
      const uint4 fragment = rows[(m * tiles.steps + step) * kLanes];
      a[m] = Core::split(fragment);
    }
#pragma unroll
    for (int n = 0; n < kWarpColumns / 8; ++n) {
      const uint32_t* const upper = words + step * kWordsOfStep * kStride<kColumns> + 8 * n;
      const auto b = Core::split(uint2{upper[0], upper[4 * kStride<kColumns>]});
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) Core::multiply_add(sums[m][n], a[m], b);
    }
  }
}

/// visit(pair, first, second) for a thread's sums and where they lie in `map`, two columns side by side.
template <int kColumns, int kRowTiles, typename Visit>
__device__ __forceinline__ void for_pairs(float* map, Sums<kRowTiles>& sums, Visit visit) {
  const int lane = threadIdx.x % kLanes;
  const int row = first_tile_of_warp<kColumns>(kRowTiles) * kRowsOfTile + lane / 4;
  float* const first = map + row * kStride<kColumns> + first_column_of_warp<kColumns>() + 2 * (lane % 4);
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
    for (int n = 0; n < kWarpColumns / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; i += 2) {
        float* const pair = first + (m * kRowsOfTile + i / 2 * 8) * kStride<kColumns> + 8 * n;
        visit(*reinterpret_cast<float2*>(pair), sums[m][n][i], sums[m][n][i + 1]);
      }
    }
  }
}

template <int kRowTiles, int kColumns, typename T>
__global__ void __launch_bounds__(kMostThreads, kBlocksAtOnce<T>)
    glu_pool_mma_kernel(GluParams<T> p, MatrixTiles tiles) {
  using Core = TensorCore<T>;
  const Columns<T, kColumns> at(p);
  const int words = tiles.words();
  auto* const x = static_cast<uint32_t*>(dynamic_shared_memory());
  auto* const linear = reinterpret_cast<float*>(x + words * kStride<kColumns>);
  read_words(p, at, words, x);
  __syncthreads();
  Sums<kRowTiles> sums{};
  multiply<T, kColumns, kRowTiles>(p.fragments, tiles, x, sums);
  for_pairs<kColumns, kRowTiles>(linear, sums, [](float2& pair, float a, float b) { pair = float2{a, b}; });
  __syncthreads();
  const int k = static_cast<int>(threadIdx.x) % at.pools, c_step = static_cast<int>(blockDim.x) / at.pools;
  const int first_c = static_cast<int>(threadIdx.x) / at.pools;
  if (at.first + k >= p.pools() || first_c >= c_step) return;
  const float scale = 1.0f / static_cast<float>(p.p * p.n);
  for (int c = first_c; c < p.C; c += c_step) {
    const float* const map = linear + c * kStride<kColumns> + k * p.n;
    const uint32_t* const gates = x + c / Core::kPerWord * kStride<kColumns> + k * p.n;
    const float bias = p.bias[c];
    float sum = 0;
    for (int r = 0; r < p.p; ++r) {
      for (int q = 0; q < p.n; ++q) {
        const int j = r * at.width + q;
        sum += (map[j] + bias) * gate<T>(Core::value(gates[j], c % Core::kPerWord));
      }
    }
    p.out[(at.b * p.C + c) * p.pools() + at.first + k] = static_cast<T>(scale * sum);
  }
}

template <int kRowTiles, int kColumns, typename T>
__global__ void __launch_bounds__(kMostThreads, kBlocksAtOnce<T>)
    glu_pool_mma_backward_kernel(GluParams<T> p, MatrixTiles tiles) {
  using Core = TensorCore<T>;
  const Columns<T, kColumns> at(p);
  const int words = tiles.words();
  auto* const x = static_cast<uint32_t*>(dynamic_shared_memory());
  auto* const map = reinterpret_cast<float*>(x + words * kStride<kColumns>);
  read_words(p, at, words, x);
  __syncthreads();
  Sums<kRowTiles> sums{};
  multiply<T, kColumns, kRowTiles>(p.fragments, tiles, x, sums);
  for_pairs<kColumns, kRowTiles>(map, sums, [](float2& pair, float a, float b) { pair = float2{a, b}; });
  __syncthreads();
  // what comes through the gate takes the place of the linear map, what comes through the map that of x
  const float scale = 1.0f / static_cast<float>(p.p * p.n);
  const T* const grad = p.grad + at.b * p.C * p.pools() + at.pool;
#pragma unroll 4
  for (int w = at.channel; w < words; w += at.channels) {
    uint32_t& word = x[w * kStride<kColumns> + at.column];
    float through[Core::kPerWord];
#pragma unroll
    for (int k = 0; k < Core::kPerWord; ++k) {
      const int c = w * Core::kPerWord + k;
      through[k] = 0;
      if (c < p.C) {
        const float open = gate<T>(Core::value(word, k));
        if (at.used) through[k] = scale * static_cast<float>(grad[int64_t{c} * p.pools()]) * open;
        float& value = map[c * kStride<kColumns> + at.column];
        value = through[k] * (value + p.bias[c]) * (1 - open);
      }
    }
    word = Core::word(through);
  }
  __syncthreads();
  for_pairs<kColumns, kRowTiles>(map, sums, [](const float2& pair, float& a, float& b) {
    a = pair.x;
    b = pair.y;
  });
  multiply<T, kColumns, kRowTiles>(p.fragments + tiles.fragments(), tiles, x, sums);
  for_pairs<kColumns, kRowTiles>(map, sums, [](float2& pair, float a, float b) { pair = float2{a, b}; });
  __syncthreads();
  if (!at.used) return;
  const int64_t channel = int64_t{p.F} * p.frames;
  T* const first = p.out + at.b * p.C * channel + at.position;
  for (int c = at.channel; c < p.C; c += at.channels) {
    first[c * channel] = static_cast<T>(map[c * kStride<kColumns> + at.column]);
  }
}

/// run<kRowTiles, kColumns>() as fits the channels: blocks of 128 to 256 threads and at most 74 KB of shared memory.
template <typename Run>
auto with_shape_of_block(int C, Run run) {
  if (C <= kRowsOfTile) return run.template operator()<1, 128>();
  if (C <= 64) return run.template operator()<2, 128>();
  return run.template operator()<2, 64>();
}

template <int kRowTiles, typename T>
MatrixTiles matrix_tiles(const GluParams<T>& p) {
  constexpr int kRows = kRowTiles * kRowsOfTile, kValues = kWordsOfStep * TensorCore<T>::kPerWord;
  return {(p.C + kRows - 1) / kRows * kRowTiles, (p.C + kValues - 1) / kValues};
}

/// Of p.fragments, for the forward or the backward; 0 where launch_glu_pool has to serve.
template <bool kBackward, typename T>
int64_t fragment_bytes(const GluParams<T>& p) {
  if (p.C > kMostChannels || architecture_of(fragments_kernel<T>) < kTensorCores) return 0;
  if (int64_t{p.F} * p.frames >= 1 << 30) return 0;
  return with_shape_of_block(p.C, [&]<int kRowTiles, int kColumns>() -> int64_t {
    if (int64_t{p.p} * p.n > kColumns) return 0;
    return (kBackward ? 2 : 1) * int64_t{matrix_tiles<kRowTiles>(p).fragments()} * sizeof(uint4);
  });
}

/// As launch_glu_pool.
template <bool kBackward, typename T>
void launch_glu_pool_mma(const GluParams<T>& p, cudaStream_t stream) {
  with_shape_of_block(p.C, [&]<int kRowTiles, int kColumns>() {
    using At = Columns<T, kColumns>;
    const MatrixTiles tiles = matrix_tiles<kRowTiles>(p);
    const dim3 all_tiles(tiles.rows * tiles.steps, kBackward ? 2 : 1);
    launch({"fragments_kernel", all_tiles, kLanes, stream}, fragments_kernel<T>, p.weight, p.C, tiles,
           p.fragments);
    const unsigned int blocks = exact_grid(p.B * At::blocks_of_clip(p), "glu_pool");
    const unsigned int threads = tiles.rows / kRowTiles * kColumns;
    const size_t bytes = (tiles.words() + tiles.rows * kRowsOfTile) * kStride<kColumns> * sizeof(float);
    if constexpr (kBackward) {
      launch({"glu_pool_mma_backward_kernel", blocks, threads, stream, bytes},
             glu_pool_mma_backward_kernel<kRowTiles, kColumns, T>, p, tiles);
    } else {
      launch({"glu_pool_mma_kernel", blocks, threads, stream, bytes},
             glu_pool_mma_kernel<kRowTiles, kColumns, T>, p, tiles);
    }
  });
}

}  // namespace
}  // namespace task_aware
