#pragma once

// mel_mask, forward: mask = floor + (1 - floor) sigmoid(logits), masked = mask * mel
//   features = (20 log10(max(masked, amin, threshold)) - mean) / std
//   maximum[b,s] = max(amin, masked) over F and T, kept for the backward (mel_mask_backward.cuh)
//   threshold[b,s] = maximum * 10^(-top_db / 20)
//   logits [B,S,F,T], mel [B,F,T], mean and std [F]
//
// Mapping: a (b,s) row of F*T values is cut into chunks, one block each.
//   maximum_kernel    the largest value of each chunk
//   features_kernel   every block reduces its row's chunks and writes both outputs
//   for as many rows at a time as stay in the L2 cache between the two
// Traffic: logits read once from memory and once from the L2 cache; outputs written once. No atomics.

#include <algorithm>
#include <limits>

#include "common/accumulate.h"
#include "cuda/block_reduce.cuh"
#include "cuda/grid.h"
#include "cuda/launch.h"
#include "cuda/mel_mask_shared.cuh"
#include "cuda/vector.cuh"

namespace task_aware {
namespace {

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

/// `workspace` holds forward_workspace() values.
template <typename T, typename A = accumulate_t<T>>
void launch_mel_mask(MaskParams<A> p, A* workspace, cudaStream_t stream) {
  with_groups<T>(
      p, [&]<int kCount, bool kOneBand>() { launch_forward<T, kCount, kOneBand>(p, workspace, stream); });
}

}  // namespace
}  // namespace task_aware
