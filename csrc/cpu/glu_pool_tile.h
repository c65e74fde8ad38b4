#pragma once

// glu_pool and conv_glu_pool of one thread's share of rows; the formulas stand in glu_pool.cpp.
//
// A position's channels lie together (channels last). A tile of positions of one (b, mel band) times a matrix is a small
// product in the L1 cache (products.h): the gate, the pooling and, in the backward, the product's second half
// happen there, so the linear map is never written; the backward computes it again. A convolution before it is computed
// from three rows of features, and its gradient added to three.

#include <algorithm>
#include <vector>

#include "common/dispatch.h"
#include "cpu/fast_math.h"
#include "cpu/products.h"
#include "cpu/vectors.h"

namespace task_aware {

constexpr int64_t kTaps = 9;  // of a convolution

template <typename T, typename A = accumulate_t<T>>
struct GluParams {
  const T* x;           // [B,F,frames,C], or the features [B,F,frames] of a convolution
  const A* taps;        // panels of kernel [kTaps,C], of a convolution alone, with shift
  const A* shift;       // [width]
  const T* spreading;   // panels of kernel [C,kTaps], of a convolution's backward alone
  const T* weight;      // panels of the transposed weight: linear = x weight
  const T* transposed;  // panels of the weight, of the backward alone
  const A* bias;        // [width]
  const T* grad;        // [B,bands,pooled_frames,C], of the backward alone
  T* out;               // as grad, or grad x, as x
  A* planes;            // [B,F,3,frames], zeros, of a convolution's backward alone
  int64_t C, F, frames, p, n;
  int64_t tile;        // positions of a tile
  int64_t begin, end;  // rows (b, i)

  int64_t bands() const { return F / p; }
  int64_t pooled_frames() const { return frames / n; }
  int64_t width() const { return whole_panels(C); }  // of a position in a tile
};

/// One thread's share, a tile of one (b, i) after the other.
template <typename T, bool kBackward, bool kConvolved>
struct GluPool {
  using A = accumulate_t<T>;

  /// Arrays of [tile,width], with room for the rows that a product computes beyond.
  struct Tiles {
    std::vector<T> factors;
    std::vector<A> memory;
    T *x, *through_linear;  // what is multiplied; the latter, as through_gate, in the backward alone
    A *gate, *pooled, *through_gate;  // in the type of sums
    A* taps;                          // [tile,kPanel] of a convolution's backward
    A* features;                      // three rows of a tile and of a frame on each side

    Tiles(int64_t tile, int64_t width) {
      const int64_t rows = (tile / 12 + 1) * 12, size = rows * width;
      factors.resize((kBackward ? 2 : 1) * size, T(0));
      x = factors.data();
      through_linear = x + (kBackward ? size : 0);
      memory.resize((kBackward ? 3 : 2) * size + rows * kPanel + 3 * (tile + 2));
      gate = memory.data();
      pooled = gate + size;
      through_gate = pooled + (kBackward ? size : 0);
      taps = through_gate + size;
      features = taps + rows * kPanel;
    }
  };

  template <int kBytes>
  static TASK_AWARE_INLINE void run(const GluParams<T>& p) {
    if constexpr (kBytes == 64) {  // half of its lanes would be empty
      if (2 * p.C * static_cast<int64_t>(sizeof(A)) <= kBytes) return run<kBytes / 2>(p);
    }
    const int64_t used = p.pooled_frames() * p.n;
    Tiles tiles(p.tile, p.width());
    for (int64_t row = p.begin; row < p.end; ++row) {
      const int64_t b = row / p.bands(), i = row % p.bands();
      for (int64_t t = 0; t < used; t += p.tile) {
        const int64_t count = std::min(p.tile, used - t);
        const int64_t pooled = (row * p.pooled_frames() + t / p.n) * p.C;  // where the tile begins in out
        if constexpr (kBackward) {
          expand<kBytes>(p, tiles.pooled, p.grad + pooled, count);
        } else {
          std::fill_n(tiles.pooled, count / p.n * p.width(), A(0));
        }
        for (int64_t f = i * p.p; f < (i + 1) * p.p; ++f) {
          kConvolved ? convolve<kBytes>(p, tiles, b, f, t, count) : read<kBytes>(p, tiles, b, f, t, count);
          kBackward ? backward<kBytes>(p, tiles, b, f, t, count) : forward<kBytes>(p, tiles, count);
        }
        if constexpr (!kBackward) write<kBytes>(p, tiles.pooled, p.out + pooled, count / p.n);
      }
      if constexpr (kBackward && !kConvolved) clear_rest(p, b, i, used);
    }
  }

  /// visit(column, values) for each vector of a position's channels, the last one perhaps incomplete.
  template <int kBytes, typename Visit>
  static TASK_AWARE_INLINE void for_channels(const GluParams<T>& p, Visit visit) {
    constexpr int64_t kLanes = kBytes / sizeof(A);
    for (int64_t c = 0; c < p.C; c += kLanes) visit(c, std::min(kLanes, p.C - c));
  }

  /// The tile of x and its gate.
  template <int kBytes>
  static TASK_AWARE_INLINE void read(const GluParams<T>& p, const Tiles& to, int64_t b, int64_t f, int64_t t,
                                     int64_t count) {
    constexpr int kLanes = kBytes / sizeof(A);
    const T* const from = p.x + ((b * p.F + f) * p.frames + t) * p.C;
    for (int64_t k = 0; k < count; ++k) {
      for_channels<kBytes>(p, [&](int64_t c, int64_t n) TASK_AWARE_LAMBDA {
        const T* const source = from + k * p.C + c;
        const auto x = n == kLanes ? load<T, kLanes>(source) : load<T, kLanes>(source, n);
        store(to.x + k * p.width() + c, x);
        store(to.gate + k * p.width() + c, sigmoid(x));
      });
    }
  }

  /// The tile of x and its gate from the features around it.
  template <int kBytes>
  static TASK_AWARE_INLINE void convolve(const GluParams<T>& p, const Tiles& to, int64_t b, int64_t f,
                                         int64_t t, int64_t count) {
    constexpr int kLanes = kBytes / sizeof(A);
    using V = vector_t<A, kLanes>;
    const int64_t width = p.tile + 2;
    std::fill_n(to.features, 3 * width, A(0));
    for (int64_t i = std::max<int64_t>(0, 1 - f); i < std::min<int64_t>(3, p.F + 1 - f); ++i) {
      const T* const row = p.x + (b * p.F + f + i - 1) * p.frames;
      A* const copy = to.features + i * width + 1 - t;
      const int64_t first = std::max<int64_t>(0, t - 1), last = std::min(p.frames, t + count + 1);
      for (int64_t k = first; k < last; ++k) copy[k] = static_cast<A>(row[k]);
    }
    for_channels<kBytes>(p, [&](int64_t c, int64_t) TASK_AWARE_LAMBDA {
      V taps[kTaps];
      for (int tap = 0; tap < kTaps; ++tap)
        taps[tap] = load<A, kLanes>(p.taps + (c / kPanel * kTaps + tap) * kPanel + c % kPanel);
      const V shift = load<A, kLanes>(p.shift + c);
      for (int64_t k = 0; k < count; ++k) {
        V x = shift;
        for (int tap = 0; tap < kTaps; ++tap) x += taps[tap] * to.features[tap / 3 * width + tap % 3 + k];
        store(to.x + k * p.width() + c, x);
        store(to.gate + k * p.width() + c, sigmoid(x));
      }
    });
  }

  template <int kBytes>
  static TASK_AWARE_INLINE void forward(const GluParams<T>& p, const Tiles& tiles, int64_t count) {
    constexpr int kLanes = kBytes / sizeof(A);
    using V = vector_t<A, kLanes>;
    const int64_t width = p.width(), columns = whole_vectors<V>(p.C);
    multiply<V>(p.weight, p.C, columns, tiles.x, width, count,
                [&](int64_t k, int64_t c, V product) TASK_AWARE_LAMBDA {
                  A* const gate = tiles.gate + k * width + c;
                  store(gate, (product + load<A, kLanes>(p.bias + c)) * load<A, kLanes>(gate));
                });
    for (int64_t k = 0; k < count / p.n; ++k) {
      for_channels<kBytes>(p, [&](int64_t c, int64_t) TASK_AWARE_LAMBDA {
        A* const to = tiles.pooled + k * width + c;
        V sum = load<A, kLanes>(to);
        for (int64_t q = 0; q < p.n; ++q) sum += load<A, kLanes>(tiles.gate + (k * p.n + q) * width + c);
        store(to, sum);
      });
    }
  }

  /// `count` pooled positions to `out`.
  template <int kBytes>
  static TASK_AWARE_INLINE void write(const GluParams<T>& p, const A* sums, T* out, int64_t count) {
    constexpr int kLanes = kBytes / sizeof(A);
    const A scale = A(1) / static_cast<A>(p.p * p.n);
    for (int64_t k = 0; k < count; ++k) {
      for_channels<kBytes>(p, [&](int64_t c, int64_t n) TASK_AWARE_LAMBDA {
        const auto mean = scale * load<A, kLanes>(sums + k * p.width() + c);
        n == kLanes ? store(out + k * p.C + c, mean) : store(out + k * p.C + c, mean, n);
      });
    }
  }

  /// What each position of a pool gets of its gradient.
  template <int kBytes>
  static TASK_AWARE_INLINE void expand(const GluParams<T>& p, A* to, const T* grad, int64_t count) {
    constexpr int kLanes = kBytes / sizeof(A);
    const A scale = A(1) / static_cast<A>(p.p * p.n);
    for (int64_t k = 0; k < count / p.n; ++k) {
      for_channels<kBytes>(p, [&](int64_t c, int64_t n) TASK_AWARE_LAMBDA {
        const T* const source = grad + k * p.C + c;
        const auto share = scale * (n == kLanes ? load<T, kLanes>(source) : load<T, kLanes>(source, n));
        for (int64_t q = 0; q < p.n; ++q) store(to + (k * p.n + q) * p.width() + c, share);
      });
    }
  }

  template <int kBytes>
  static TASK_AWARE_INLINE void backward(const GluParams<T>& p, const Tiles& tiles, int64_t b, int64_t f,
                                         int64_t t, int64_t count) {
    constexpr int kLanes = kBytes / sizeof(A);
    using V = vector_t<A, kLanes>;
    const int64_t width = p.width(), columns = whole_vectors<V>(p.C);
    multiply<V>(p.weight, p.C, columns, tiles.x, width, count,
                [&](int64_t k, int64_t c, V product) TASK_AWARE_LAMBDA {
                  const int64_t at = k * width + c;
                  const V gate = load<A, kLanes>(tiles.gate + at),
                          grad = load<A, kLanes>(tiles.pooled + at) * gate;
                  store(tiles.through_linear + at, grad);
                  store(tiles.through_gate + at, grad * (product + load<A, kLanes>(p.bias + c)) * (1 - gate));
                });
    T* const out = p.out + ((b * p.F + f) * p.frames + t) * p.C;
    multiply<V>(p.transposed, p.C, columns, tiles.through_linear, width, count,
                [&](int64_t k, int64_t c, V product) TASK_AWARE_LAMBDA {
                  const V value = product + load<A, kLanes>(tiles.through_gate + k * width + c);
                  if constexpr (kConvolved) {
                    store(tiles.x + k * width + c, value);
                  } else if (k < count && c + kLanes <= p.C) {
                    store(out + k * p.C + c, value);
                  } else if (k < count && c < p.C) {
                    store(out + k * p.C + c, value, p.C - c);
                  }
                });
    if constexpr (kConvolved) spread<kBytes>(p, tiles, b, f, t, count);
  }

  /// Adds the tile of grad x to its planes.
  template <int kBytes>
  static TASK_AWARE_INLINE void spread(const GluParams<T>& p, const Tiles& tiles, int64_t b, int64_t f,
                                       int64_t t, int64_t count) {
    using V = vector_t<A, kBytes / sizeof(A)>;
    multiply<V>(p.spreading, p.C, kPanel, tiles.x, p.width(), count,
                [&](int64_t k, int64_t tap, V product)
                    TASK_AWARE_LAMBDA { store(tiles.taps + k * kPanel + tap, product); });
    for (int i = 0; i < 3; ++i) {
      A* const plane = p.planes + ((b * p.F + f) * 3 + i) * p.frames + t;
      for (int j = 0; j < 3; ++j) {
        const int64_t first = t + j == 0 ? 1 : 0, last = std::min(count, p.frames - t - j + 1);
        for (int64_t k = first; k < last; ++k) plane[k + j - 1] += tiles.taps[k * kPanel + 3 * i + j];
      }
    }
  }

  /// No gradient where no pool reaches: the last frames of the row's bands and, after the last row, the last bands.
  static TASK_AWARE_INLINE void clear_rest(const GluParams<T>& p, int64_t b, int64_t i, int64_t used) {
    T* const item = p.out + b * p.F * p.frames * p.C;
    for (int64_t f = i * p.p; f < (i + 1) * p.p; ++f)
      std::fill_n(item + (f * p.frames + used) * p.C, (p.frames - used) * p.C, T(0));
    if (i + 1 < p.bands()) return;
    const int64_t reached = p.bands() * p.p;
    std::fill_n(item + reached * p.frames * p.C, (p.F - reached) * p.frames * p.C, T(0));
  }
};

}  // namespace task_aware
