#pragma once

// glu_pool and conv_glu_pool of one thread's share of rows; the formulas stand in glu_pool.cpp.
//
// A tile of positions of one (b, mel band) is a small matrix product with all channels in the L1 cache: the gate, the
// pooling and, in the backward, the product's second half happen there, so the linear map is never written; the backward
// computes it again. A convolution before it is computed from three rows of features, and its gradient added to three.

#include <algorithm>
#include <vector>

#include "common/dispatch.h"
#include "cpu/fast_math.h"
#include "cpu/vectors.h"

namespace task_aware {

constexpr int64_t kLeastTile = 32, kMostTile = 512;  // positions
constexpr int64_t kPackedRows = 8;

/// A square matrix as products read it: [C / kPackedRows, C, kPackedRows], zeros below its last row.
template <typename A>
std::vector<A> packed(const A* matrix, int64_t C, bool transposed) {
  std::vector<A> result((C + kPackedRows - 1) / kPackedRows * kPackedRows * C, A(0));
  for (int64_t row = 0; row < C; ++row) {
    for (int64_t k = 0; k < C; ++k) {
      result[(row / kPackedRows * C + k) * kPackedRows + row % kPackedRows] =
          transposed ? matrix[k * C + row] : matrix[row * C + k];
    }
  }
  return result;
}

template <typename T, typename A = accumulate_t<T>>
struct GluParams {
  const T* x;       // or the features of a convolution
  const A* kernel;  // of a convolution alone, with shift
  const A* shift;
  const A* weight;      // packed
  const A* transposed;  // packed, of the backward alone
  const A* bias;
  const T* grad;  // of the backward alone
  T* out;         // out or grad x
  A* planes;      // [B,F,3,T], zeros, of a convolution's backward alone
  int64_t C, F, frames, p, n;
  int64_t tile;        // positions of a tile, a multiple of kLeastTile
  int64_t begin, end;  // rows (b, i)

  int64_t bands() const { return F / p; }
  int64_t pooled_frames() const { return frames / n; }
};

/// finish(row, column, sum over k of matrix[row,k] in[k,column]) for each row and vector of the first `width` columns of
/// `in` [C,tile].
template <typename V, typename A, typename Finish>
TASK_AWARE_INLINE void multiply(const A* matrix, const A* in, int64_t C, int64_t tile, int64_t width,
                                Finish finish) {
  constexpr int64_t kLanes = kLanesOf<V>, kRows = sizeof(V) == 64 ? kPackedRows : kPackedRows / 2,
                    kVectors = 2;
  for (int64_t first = 0; first < C; first += kRows) {
    const A* const weights = matrix + first / kPackedRows * kPackedRows * C + first % kPackedRows;
    for (int64_t column = 0; column < width; column += kVectors * kLanes) {
      V sum[kRows][kVectors] = {};
      for (int64_t k = 0; k < C; ++k) {
        V values[kVectors];
        for (int64_t v = 0; v < kVectors; ++v)
          values[v] = load<A, kLanes>(in + k * tile + column + v * kLanes);
        for (int64_t r = 0; r < kRows; ++r) {
          for (int64_t v = 0; v < kVectors; ++v) sum[r][v] += weights[k * kPackedRows + r] * values[v];
        }
      }
      for (int64_t r = 0; r < std::min(kRows, C - first); ++r) {
        for (int64_t v = 0; v < kVectors; ++v) finish(first + r, column + v * kLanes, sum[r][v]);
      }
    }
  }
}

/// Columns beyond a tile that a convolution reads on each side, and vectors of it overrun.
constexpr int64_t kMargin = 16;

/// One thread's share, a tile of one (b, i) after the other.
template <typename T, bool kBackward, bool kConvolved>
struct GluPool {
  using A = accumulate_t<T>;

  /// Arrays of [C,tile].
  struct Tiles {
    std::vector<A> memory;
    A *x, *gate, *pooled, *through_linear, *through_gate;  // the last two of the backward
    A* features;                                           // three rows of a tile and its margins

    Tiles(int64_t size, int64_t tile) : memory((kBackward ? 5 : 3) * size + 3 * (tile + 2 * kMargin)) {
      A* next = memory.data();
      for (A** array : {&x, &gate, &pooled, &through_linear, &through_gate}) {
        if (!kBackward && (array == &through_linear || array == &through_gate)) continue;
        *array = next;
        next += size;
      }
      features = next;
    }
  };

  /// Positions that are computed for `count` of them.
  static int64_t width_of(int64_t count) { return (count + kLeastTile - 1) / kLeastTile * kLeastTile; }

  template <int kBytes>
  static TASK_AWARE_INLINE void run(const GluParams<T>& p) {
    const int64_t tile = p.tile / p.n * p.n, used = p.pooled_frames() * p.n;
    Tiles tiles(p.C * p.tile, p.tile);
    for (int64_t row = p.begin; row < p.end; ++row) {
      const int64_t b = row / p.bands(), i = row % p.bands();
      for (int64_t t = 0; t < used; t += tile) {
        const int64_t count = std::min(tile, used - t);
        if constexpr (kBackward) {
          expand(p, tiles.pooled, b, i, t, count);
        } else {
          std::fill_n(tiles.pooled, p.C * p.tile, A(0));
        }
        for (int64_t f = i * p.p; f < (i + 1) * p.p; ++f) {
          kConvolved ? convolve<kBytes>(p, tiles, b, f, t, count) : read<kBytes>(p, tiles, b, f, t, count);
          kBackward ? backward<kBytes>(p, tiles, b, f, t, count) : forward<kBytes>(p, tiles, count);
        }
        if constexpr (!kBackward) pool<kBytes>(p, tiles.pooled, b, i, t, count);
      }
    }
  }

  /// The tile of x and its gate; zeros beyond `count`.
  template <int kBytes>
  static TASK_AWARE_INLINE void read(const GluParams<T>& p, const Tiles& to, int64_t b, int64_t f, int64_t t,
                                     int64_t count) {
    constexpr int kLanes = kBytes / sizeof(A);
    for (int64_t c = 0; c < p.C; ++c) {
      const T* const from = p.x + ((b * p.C + c) * p.F + f) * p.frames + t;
      for (int64_t k = 0; k < width_of(count); k += kLanes) {
        const auto x = k + kLanes <= count ? load<T, kLanes>(from + k)
                                           : load<T, kLanes>(from + k, std::max<int64_t>(0, count - k));
        store(to.x + c * p.tile + k, x);
        store(to.gate + c * p.tile + k, sigmoid(x));
      }
    }
  }

  /// The tile of x and its gate from the features around it.
  template <int kBytes>
  static TASK_AWARE_INLINE void convolve(const GluParams<T>& p, const Tiles& to, int64_t b, int64_t f,
                                         int64_t t, int64_t count) {
    constexpr int kLanes = kBytes / sizeof(A);
    using V = vector_t<A, kLanes>;
    const int64_t width = p.tile + 2 * kMargin, used = width_of(count);
    std::fill_n(to.features, 3 * width, A(0));
    for (int64_t i = std::max<int64_t>(0, 1 - f); i < std::min<int64_t>(3, p.F + 1 - f); ++i) {
      const T* const row = p.x + (b * p.F + f + i - 1) * p.frames;
      A* const copy = to.features + i * width + kMargin - t;
      const int64_t first = std::max<int64_t>(0, t - 1), last = std::min(p.frames, t + count + 1);
      for (int64_t k = first; k < last; ++k) copy[k] = static_cast<A>(row[k]);
    }
    for (int64_t c = 0; c < p.C; ++c) {
      const A* const kernel = p.kernel + 9 * c;
      for (int64_t k = 0; k < used; k += kLanes) {
        V x = V{} + p.shift[c];
        for (int i = 0; i < 3; ++i) {
          const A* const around = to.features + i * width + kMargin + k - 1;
          for (int j = 0; j < 3; ++j) x += kernel[3 * i + j] * load<A, kLanes>(around + j);
        }
        store(to.x + c * p.tile + k, x);
        store(to.gate + c * p.tile + k, sigmoid(x));
      }
    }
  }

  /// Adds the tile of grad x, zeros beyond `count`, to its planes.
  template <int kBytes>
  static TASK_AWARE_INLINE void spread(const GluParams<T>& p, const A* grad_x, int64_t b, int64_t f,
                                       int64_t t, int64_t count) {
    constexpr int kLanes = kBytes / sizeof(A);
    using V = vector_t<A, kLanes>;
    for (int i = 0; i < 3; ++i) {
      A* const plane = p.planes + ((b * p.F + f) * 3 + i) * p.frames;
      for (int64_t k = 0; k < count; k += kLanes) {
        V sum[3] = {};
        for (int64_t c = 0; c < p.C; ++c) {
          const V grad = load<A, kLanes>(grad_x + c * p.tile + k);
          for (int j = 0; j < 3; ++j) sum[j] += p.kernel[9 * c + 3 * i + j] * grad;
        }
        for (int j = 0; j < 3; ++j) {
          const int64_t to = t + k + j - 1;
          if (to >= 0 && to + kLanes <= p.frames) {
            store(plane + to, load<A, kLanes>(plane + to) + sum[j]);
          } else {
            for (int64_t lane = std::max<int64_t>(0, -to); lane < std::min<int64_t>(kLanes, p.frames - to);
                 ++lane)
              plane[to + lane] += sum[j][lane];
          }
        }
      }
    }
  }

  template <int kBytes>
  static TASK_AWARE_INLINE void forward(const GluParams<T>& p, const Tiles& tiles, int64_t count) {
    const int64_t width = width_of(count);
    constexpr int kLanes = kBytes / sizeof(A);
    using V = vector_t<A, kLanes>;
    multiply<V>(p.weight, tiles.x, p.C, p.tile, width,
                [&](int64_t c, int64_t k, V product) TASK_AWARE_LAMBDA {
                  const int64_t at = c * p.tile + k;
                  const V gated = (product + p.bias[c]) * load<A, kLanes>(tiles.gate + at);
                  store(tiles.pooled + at, load<A, kLanes>(tiles.pooled + at) + gated);
                });
  }

  template <int kBytes>
  static TASK_AWARE_INLINE void pool(const GluParams<T>& p, const A* sums, int64_t b, int64_t i, int64_t t,
                                     int64_t count) {
    constexpr int kLanes = kBytes / sizeof(A);
    using V = vector_t<A, kLanes>;
    const A scale = A(1) / static_cast<A>(p.p * p.n);
    const int64_t n_out = count / p.n;
    for (int64_t c = 0; c < p.C; ++c) {
      const A* const sum = sums + c * p.tile;
      T* const out = p.out + ((b * p.C + c) * p.bands() + i) * p.pooled_frames() + t / p.n;
      if (p.n <= 2) {
        for (int64_t k = 0; k < n_out; k += kLanes) {
          V value = load<A, kLanes>(sum + p.n * k);
          if (p.n == 2) {
            const V next = load<A, kLanes>(sum + 2 * k + kLanes);
            value = evens(value, next, kLaneNumbers<V>) + odds(value, next, kLaneNumbers<V>);
          }
          store(out + k, scale * value, std::min<int64_t>(kLanes, n_out - k));
        }
      } else {
        for (int64_t k = 0; k < n_out; ++k) {
          A value = 0;
          for (int64_t q = 0; q < p.n; ++q) value += sum[k * p.n + q];
          out[k] = static_cast<T>(scale * value);
        }
      }
    }
  }

  /// What each position of a pool gets of its gradient; zeros beyond `count`.
  static TASK_AWARE_INLINE void expand(const GluParams<T>& p, A* to, int64_t b, int64_t i, int64_t t,
                                       int64_t count) {
    const A scale = A(1) / static_cast<A>(p.p * p.n);
    for (int64_t c = 0; c < p.C; ++c, to += p.tile) {
      const T* const grad = p.grad + ((b * p.C + c) * p.bands() + i) * p.pooled_frames() + t / p.n;
      for (int64_t k = 0; k < count / p.n; ++k) {
        const A value = scale * static_cast<A>(grad[k]);
        for (int64_t q = 0; q < p.n; ++q) to[k * p.n + q] = value;
      }
      std::fill(to + count, to + width_of(count), A(0));
    }
  }

  template <int kBytes>
  static TASK_AWARE_INLINE void backward(const GluParams<T>& p, const Tiles& tiles, int64_t b, int64_t f,
                                         int64_t t, int64_t count) {
    constexpr int kLanes = kBytes / sizeof(A);
    using V = vector_t<A, kLanes>;
    const int64_t width = width_of(count);
    multiply<V>(
        p.weight, tiles.x, p.C, p.tile, width, [&](int64_t c, int64_t k, V product) TASK_AWARE_LAMBDA {
          const int64_t at = c * p.tile + k;
          const V gate = load<A, kLanes>(tiles.gate + at), grad = load<A, kLanes>(tiles.pooled + at) * gate;
          store(tiles.through_linear + at, grad);
          store(tiles.through_gate + at, grad * (product + p.bias[c]) * (1 - gate));
        });
    multiply<V>(p.transposed, tiles.through_linear, p.C, p.tile, width,
                [&](int64_t c, int64_t k, V product) TASK_AWARE_LAMBDA {
                  T* const to = p.out + ((b * p.C + c) * p.F + f) * p.frames + t + k;
                  const V value = product + load<A, kLanes>(tiles.through_gate + c * p.tile + k);
                  if constexpr (kConvolved) {
                    store(tiles.x + c * p.tile + k, value);
                  } else if (k + kLanes <= count) {
                    store(to, value);
                  } else if (k < count) {
                    store(to, value, count - k);
                  }
                });
    if constexpr (kConvolved) spread<kBytes>(p, tiles.x, b, f, t, count);
  }
};

}  // namespace task_aware
