#pragma once

// conv_block's passes over chunks of frames; the formulas and the order of the passes stand in conv_block.cpp.
//
// A frame's channels lie together and are padded with zeros to whole vectors. A chunk of frames is a tile in the L1 or
// L2 cache, whose products with a matrix are those of products.h; what stands between two products is computed for a
// vector of channels down the frames of the chunk.

#include <algorithm>
#include <vector>

#include "common/dispatch.h"
#include "cpu/products.h"
#include "cpu/vectors.h"

namespace task_aware {

constexpr int64_t kChunk = 48;  // frames, a multiple of the rows that a product computes at once

/// Vectors over the hidden channels. The three taps of the depthwise convolution are a frame `dilation` before, here, and
/// one after.
enum BlockVector {
  kBias1,
  kGain1,
  kShift1,
  kBefore,
  kHere,
  kAfter,
  kDepthBias,
  kGain2,
  kShift2,
  kReal,
  kBlockVectors
};

/// What the backward sums over frames, per channel.
enum BlockSum {
  kOfBias2,  // over the outputs
  kOfGain2,
  kOfShift2,
  kOfDepthBias,
  kOfSlope2,
  kOfBefore,
  kOfHere,
  kOfAfter,
  kOfGain1,
  kOfShift1,
  kOfBias1,
  kOfSlope1,
  kBlockSums
};

template <typename T, typename A = accumulate_t<T>>
struct BlockParams {
  const T *x, *total;              // [B,frames,in], [B,frames,skip]
  const T *grad_out, *grad_total;  // as x and total, or nullptr, of the backward alone
  T* u;                            // the first product [B,frames,wide]
  A* v;                            // the depthwise convolution [B,frames,wide]
  A* grad;                         // grad n2, then grad v, as v
  T *out, *new_total;              // as x and total; out is grad x in the backward
  const T *expand, *project;       // panels of the first matrix [in,hidden], of the second [hidden,both]
  const A *vectors, *bias2;        // [kBlockVectors,wide], [both]
  A slope1, slope2;
  A* moments;      // [chunks,2], mean and sum of squared differences from it
  const A* norms;  // [B,4], mean and 1 / standard deviation of the first norm and of the second
  const A*
      means;  // [B,2], of the backward alone: means over an item of g and of g times the standardised value
  A* sums;    // [chunks,kBlockSums,sums_width]
  A* grad_matrix;  // of one thread
  int64_t frames, in, hidden, skip, dilation;
  int64_t begin, end;  // chunks

  int64_t wide() const { return whole_panels(hidden); }
  int64_t in_wide() const { return whole_panels(in); }
  int64_t both() const { return in_wide() + whole_panels(skip); }
  int64_t sums_width() const { return std::max(wide(), both()); }
  int64_t chunks_of_item() const { return (frames + kChunk - 1) / kChunk; }
};

/// Frames t .. t + count of item b; `row` is the first in [B,frames].
struct Chunk {
  int64_t index, b, t, row, count;
};

template <typename P>
TASK_AWARE_INLINE Chunk chunk_at(const P& p, int64_t index) {
  const int64_t b = index / p.chunks_of_item(), t = index % p.chunks_of_item() * kChunk;
  return {index, b, t, b * p.frames + t, std::min(kChunk, p.frames - t)};
}

/// Mean and 1 / standard deviation of an item.
template <typename A>
struct Norm {
  A mean, scale;
};

/// The first or the second norm of a chunk's item.
template <typename T, typename A>
TASK_AWARE_INLINE Norm<A> norm_of(const BlockParams<T, A>& p, const Chunk& chunk, int which) {
  return {p.norms[4 * chunk.b + 2 * which], p.norms[4 * chunk.b + 2 * which + 1]};
}

/// From a row of a tile to the next: not a power of two, whose rows would share the same lines of a cache.
TASK_AWARE_INLINE int64_t stride_of(int64_t width) { return width + kPanel; }

template <typename T>
TASK_AWARE_INLINE void copy_rows(T* to, int64_t stride, const T* from, int64_t width, int64_t count) {
  for (int64_t k = 0; k < count; ++k) std::memcpy(to + k * stride, from + k * width, width * sizeof(T));
}

template <typename V, typename A>
TASK_AWARE_INLINE V prelu(V x, A slope) {
  return x > A(0) ? x : slope * x;
}

/// The functions of a pass that are the same for several; V is a vector of sums.
template <typename V, typename T, typename A = accumulate_t<T>>
struct BlockRows {
  using P = BlockParams<T>;
  static constexpr int kLanes = kLanesOf<V>;

  static TASK_AWARE_INLINE V at(const P& p, BlockVector which, int64_t c) {
    return load<A, kLanes>(p.vectors + which * p.wide() + c);
  }

  static TASK_AWARE_INLINE A* sum(const P& p, const Chunk& chunk, BlockSum which) {
    return p.sums + (chunk.index * kBlockSums + which) * p.sums_width();
  }

  /// The standardised output of the first activation of one frame.
  static TASK_AWARE_INLINE V standard1(const P& p, const Norm<A>& norm, int64_t row, int64_t c) {
    return (prelu(load<T, kLanes>(p.u + row * p.wide() + c), p.slope1) - norm.mean) * norm.scale;
  }

  /// v of a chunk.
  static TASK_AWARE_INLINE void convolve(const P& p, const Chunk& chunk) {
    const Norm<A> norm = norm_of(p, chunk, 0);
    const int64_t wide = p.wide(), first = chunk.b * p.frames, last = first + p.frames;
    for (int64_t c = 0; c < wide; c += kLanes) {
      const V gain = at(p, kGain1, c), shift = at(p, kShift1, c), bias = at(p, kDepthBias, c);
      const V before = at(p, kBefore, c), here = at(p, kHere, c), after = at(p, kAfter, c);
      for (int64_t row = chunk.row; row < chunk.row + chunk.count; ++row) {
        V v = bias + here * (standard1(p, norm, row, c) * gain + shift);
        if (row - p.dilation >= first) v += before * (standard1(p, norm, row - p.dilation, c) * gain + shift);
        if (row + p.dilation < last) v += after * (standard1(p, norm, row + p.dilation, c) * gain + shift);
        store(p.v + row * wide + c, v);
      }
    }
  }

  /// Mean and sum of squared differences of prelu(rows) of a chunk.
  template <typename Rows>
  static TASK_AWARE_INLINE void measure(const P& p, const Chunk& chunk, const Rows* rows, A slope) {
    const int64_t wide = p.wide();
    V sum{}, squares{};
    for (int64_t k = chunk.row * wide; k < (chunk.row + chunk.count) * wide; k += kLanes)
      sum += prelu(load<Rows, kLanes>(rows + k), slope);
    const A mean = task_aware::total(sum) / static_cast<A>(chunk.count * p.hidden);
    for (int64_t c = 0; c < wide; c += kLanes) {
      const V real = at(p, kReal, c);
      for (int64_t row = chunk.row; row < chunk.row + chunk.count; ++row) {
        const V difference = (prelu(load<Rows, kLanes>(rows + row * wide + c), slope) - mean) * real;
        squares += difference * difference;
      }
    }
    p.moments[2 * chunk.index] = mean;
    p.moments[2 * chunk.index + 1] = task_aware::total(squares);
  }

  /// The second norm of a chunk to a tile.
  static TASK_AWARE_INLINE void normalise(const P& p, const Chunk& chunk, T* tile, int64_t stride) {
    const Norm<A> norm = norm_of(p, chunk, 1);
    for (int64_t c = 0; c < p.wide(); c += kLanes) {
      const V gain = at(p, kGain2, c), shift = at(p, kShift2, c);
      for (int64_t k = 0; k < chunk.count; ++k) {
        const V v = load<A, kLanes>(p.v + (chunk.row + k) * p.wide() + c);
        store(tile + k * stride + c, (prelu(v, p.slope2) - norm.mean) * norm.scale * gain + shift);
      }
    }
  }

  /// Grad n1 of one frame: grad v `dilation` after it, there, and before, by the taps that have reached there.
  struct Reaching {
    V after, here, before;
  };
  static TASK_AWARE_INLINE Reaching reaching(const P& p, const Chunk& chunk, int64_t row, int64_t c) {
    const int64_t wide = p.wide(), first = chunk.b * p.frames, last = first + p.frames;
    const A* const grad = p.grad + c;
    return {row + p.dilation < last ? load<A, kLanes>(grad + (row + p.dilation) * wide) : V{},
            load<A, kLanes>(grad + row * wide),
            row - p.dilation >= first ? load<A, kLanes>(grad + (row - p.dilation) * wide) : V{}};
  }

  /// `value` plus what lies in `base`, if anything, to the first `width` columns of a row of `to`.
  static TASK_AWARE_INLINE void add_to(T* to, const T* base, int64_t row, int64_t c, int64_t width, V value) {
    const int64_t offset = row * width + c;
    if (c + kLanes <= width) {
      store(to + offset, base ? value + load<T, kLanes>(base + offset) : value);
    } else if (c < width) {
      store(to + offset, base ? value + load<T, kLanes>(base + offset, width - c) : value, width - c);
    }
  }
};

/// u and its moments.
template <typename T>
struct BlockExpand {
  using A = accumulate_t<T>;

  template <int kBytes>
  static TASK_AWARE_INLINE void run(const BlockParams<T>& p) {
    using V = vector_t<A, kBytes / sizeof(A)>;
    using Rows = BlockRows<V, T>;
    const int64_t wide = p.wide(), stride = stride_of(p.in_wide());
    std::vector<T> x(kChunk * stride, T(0));
    for (int64_t index = p.begin; index < p.end; ++index) {
      const Chunk chunk = chunk_at(p, index);
      copy_rows(x.data(), stride, p.x + chunk.row * p.in, p.in, chunk.count);
      multiply<V>(p.expand, p.in, wide, x.data(), stride, chunk.count,
                  [&](int64_t k, int64_t c, V product) TASK_AWARE_LAMBDA {
                    if (k < chunk.count)
                      store(p.u + (chunk.row + k) * wide + c, product + Rows::at(p, kBias1, c));
                  });
      Rows::measure(p, chunk, p.u, p.slope1);
    }
  }
};

/// v and the moments of its activation.
template <typename T>
struct BlockConvolve {
  template <int kBytes>
  static TASK_AWARE_INLINE void run(const BlockParams<T>& p) {
    using A = accumulate_t<T>;
    using Rows = BlockRows<vector_t<A, kBytes / sizeof(A)>, T>;
    for (int64_t index = p.begin; index < p.end; ++index) {
      const Chunk chunk = chunk_at(p, index);
      Rows::convolve(p, chunk);
      Rows::measure(p, chunk, p.v, p.slope2);
    }
  }
};

/// Both outputs.
template <typename T>
struct BlockProject {
  using A = accumulate_t<T>;

  template <int kBytes>
  static TASK_AWARE_INLINE void run(const BlockParams<T>& p) {
    constexpr int kLanes = kBytes / sizeof(A);
    using V = vector_t<A, kLanes>;
    using Rows = BlockRows<V, T>;
    const int64_t stride = stride_of(p.wide());
    std::vector<T> normed(kChunk * stride, T(0));
    for (int64_t index = p.begin; index < p.end; ++index) {
      const Chunk chunk = chunk_at(p, index);
      Rows::normalise(p, chunk, normed.data(), stride);
      multiply<V>(p.project, p.hidden, p.both(), normed.data(), stride, chunk.count,
                  [&](int64_t k, int64_t c, V product) TASK_AWARE_LAMBDA {
                    if (k >= chunk.count) return;
                    const V value = product + load<A, kLanes>(p.bias2 + c);
                    if (c < p.in_wide()) {
                      Rows::add_to(p.out, p.x, chunk.row + k, c, p.in, value);
                    } else {
                      Rows::add_to(p.new_total, p.total, chunk.row + k, c - p.in_wide(), p.skip, value);
                    }
                  });
    }
  }
};

}  // namespace task_aware
