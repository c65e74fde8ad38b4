// conv3x3: out[b,k,f,t] = bias[k] + sum over c and 0 <= i, j < 3 of weight[k,c,i,j] x[b,c,f+i-1,t+j-1], zeros outside
//          x [B,C,F,T], weight [K,C,3,3], bias [K], out [B,K,F,T]
// backward: grad x is conv3x3 of grad with the weight mirrored and its channels exchanged
//
// By Winograd's F(2x4, 3x3): a tile of 2 bands and 4 frames of out comes from 4 x 6 values of x. With small matrices, of
// which F acts on bands and T on frames,
//   out tile = OF' [ sum over c of (WF weight WT') * (IF x IT') ] OT
// so that 24 products take the place of 72, at each tile and pair of channels. Products of one place in all tiles are those of
// two matrices (products.h). Sums are in other orders than those of a plain convolution, and errors are relative to the
// largest value of a tile: some 1e-6 of it in float32. A value that is not finite spoils its tiles.
//
// x and out lie channels last; others are copied. Tiles are numbered over items, pairs of bands and frames; threads
// share them in chunks of kTiles, whose transforms fit into an L2 cache beside those of the weight. Traffic: x is read twice,
// out is written. The limit is the 6 C K operations of each value of out.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <vector>

#include "common/dispatch.h"
#include "common/parallel.h"
#include "common/tensor.h"
#include "cpu/pages.h"
#include "cpu/products.h"
#include "cpu/vectors.h"

namespace task_aware {
namespace {

constexpr int kBands = 2, kFrames = 4;     // of a tile of out
constexpr int kRows = 4, kColumns = 6;     // of the values of x that it comes from
constexpr int kPlaces = kRows * kColumns;  // of a transform
constexpr int64_t kTiles = 24;             // of a chunk; a multiple of kRowsAtOnce

template <typename T>
struct ConvParams {
  const T* x;       // [B,F,frames,C]
  const T* weight;  // [K,C,3,3] by its strides, or transformed: [kPlaces] panels of [C,K]
  const T* bias;    // [whole_panels(K)]
  T* out;           // [B,F,frames,K], or the transformed weight
  const T* zeros;   // [C]
  int64_t strides[4];
  int64_t F, frames, C, K;
  int64_t tiles;       // of all
  int64_t begin, end;  // chunks of tiles, or rows of the weight's matrices

  int64_t tiles_of_row() const { return (frames + kFrames - 1) / kFrames; }
  int64_t rows_of_item() const { return (F + kBands - 1) / kBands; }
  int64_t matrix() const { return C * whole_panels(K); }  // elements of a transformed weight's
};

/// Six values of x along the frames, transformed (IT).
template <typename V>
TASK_AWARE_INLINE void transform_frames(const V (&x)[kColumns], V (&to)[kColumns]) {
  const V even = x[4] - 4 * x[2], odd = x[3] - 4 * x[1], outer = x[4] - x[2], inner = 2 * (x[3] - x[1]);
  to[0] = 4 * x[0] - 5 * x[2] + x[4];
  to[1] = even + odd;
  to[2] = even - odd;
  to[3] = outer + inner;
  to[4] = outer - inner;
  to[5] = 4 * x[1] - 5 * x[3] + x[5];
}

/// Six sums back to four frames (OT).
template <typename V>
TASK_AWARE_INLINE void sum_frames(const V (&sums)[kColumns], V (&to)[kFrames]) {
  const V near = sums[1] + sums[2], near_odd = sums[1] - sums[2], far = sums[3] + sums[4],
          far_odd = sums[3] - sums[4];
  to[0] = sums[0] + near + far;
  to[1] = near_odd + 2 * far_odd;
  to[2] = near + 4 * far;
  to[3] = near_odd + 8 * far_odd + sums[5];
}

/// Row c of the matrices of each place: all of its outputs' weights, transformed (WF and WT).
template <typename T>
struct TransformWeight {
  template <int kBytes>
  static TASK_AWARE_INLINE void run(const ConvParams<T>& p) {
    constexpr int kLanes = kBytes / sizeof(T);
    using V = vector_t<T, kLanes>;
    for (int64_t c = p.begin; c < p.end; ++c) {
      for (int64_t o = 0; o < whole_panels(p.K); o += kLanes) {
        V columns[3][kRows];
        for (int j = 0; j < 3; ++j) {
          V taps[3] = {};
          for (int i = 0; i < 3; ++i) {
            const T* const from = p.weight + c * p.strides[1] + i * p.strides[2] + j * p.strides[3];
            for (int lane = 0; lane < kLanes; ++lane)
              taps[i][lane] = o + lane < p.K ? from[(o + lane) * p.strides[0]] : T(0);
          }
          const V sum = T(0.5) * (taps[0] + taps[2]), half = T(0.5) * taps[1];
          columns[j][0] = taps[0];
          columns[j][1] = sum + half;
          columns[j][2] = sum - half;
          columns[j][3] = taps[2];
        }
        T* const to = p.out + o / kPanel * p.C * kPanel + c * kPanel + o % kPanel;
        for (int r = 0; r < kRows; ++r) {
          const V a = columns[0][r], b = columns[1][r], d = columns[2][r];
          const V sum = (a + d) / T(-6), far = (a + 4 * d) / T(24);
          const V places[kColumns] = {a / T(4),        sum - b / T(6),  sum + b / T(6),
                                      far + b / T(12), far - b / T(12), d};
          for (int q = 0; q < kColumns; ++q) store(to + (r * kColumns + q) * p.matrix(), places[q]);
        }
      }
    }
  }
};

template <typename T>
struct Convolve {
  template <int kBytes>
  static TASK_AWARE_INLINE void run(const ConvParams<T>& p) {
    using V = vector_t<T, kBytes / sizeof(T)>;
    // a line more, so that places do not lie at the same spot of a cache
    const int64_t wide_in = whole_panels(p.C), wide_out = whole_panels(p.K),
                  place_in = kTiles * wide_in + kPanel, place_out = kTiles * wide_out + kPanel;
    std::vector<T> memory(kPlaces * (place_in + place_out));
    T *const transformed = memory.data(), *const sums = transformed + kPlaces * place_in;
    for (int64_t chunk = p.begin; chunk < p.end; ++chunk) {
      const int64_t first = chunk * kTiles, count = std::min(kTiles, p.tiles - first);
      for (int64_t k = 0; k < count; ++k) read<kBytes>(p, first + k, transformed + k * wide_in, place_in);
      for (int64_t place = 0; place < kPlaces; ++place) {
        T* const to = sums + place * place_out;
        multiply<V>(p.weight + place * p.matrix(), p.C, whole_vectors<V>(p.K), transformed + place * place_in,
                    wide_in, count, [&](int64_t k, int64_t o, V sum) TASK_AWARE_LAMBDA {
                      store(to + k * wide_out + o, sum);
                    });
      }
      for (int64_t k = 0; k < count; ++k) write<kBytes>(p, first + k, sums + k * wide_out, place_out);
    }
  }

  /// Where a tile lies: the item's values, and its first band and frame of out.
  struct Tile {
    int64_t item, band, frame;
    TASK_AWARE_INLINE Tile(const ConvParams<T>& p, int64_t tile)
        : item(tile / p.tiles_of_row() / p.rows_of_item() * p.F * p.frames),
          band(tile / p.tiles_of_row() % p.rows_of_item() * kBands),
          frame(tile % p.tiles_of_row() * kFrames) {}
  };

  template <int kBytes>
  static TASK_AWARE_INLINE void read(const ConvParams<T>& p, int64_t index, T* to, int64_t place) {
    constexpr int kLanes = kBytes / sizeof(T);
    const Tile tile(p, index);
    const T* from[kRows][kColumns];
    for (int r = 0; r < kRows; ++r) {
      for (int q = 0; q < kColumns; ++q) {
        const int64_t f = tile.band + r - 1, t = tile.frame + q - 1;
        const bool inside = f >= 0 && f < p.F && t >= 0 && t < p.frames;
        from[r][q] = inside ? p.x + (tile.item + f * p.frames + t) * p.C : p.zeros;
      }
    }
    int64_t c = 0;
    for (; c + kLanes <= p.C; c += kLanes)
      transform<kLanes>(from, to + c, place,
                        [&](const T* x) TASK_AWARE_LAMBDA { return load<T, kLanes>(x + c); });
    if (c < p.C)
      transform<kLanes>(from, to + c, place,
                        [&](const T* x) TASK_AWARE_LAMBDA { return load<T, kLanes>(x + c, p.C - c); });
  }

  template <int kLanes, typename Load>
  static TASK_AWARE_INLINE void transform(const T* const (&from)[kRows][kColumns], T* to, int64_t place,
                                          Load load_from) {
    using V = vector_t<T, kLanes>;
    V rows[kRows][kColumns];
#pragma GCC unroll 6
    for (int q = 0; q < kColumns; ++q) {
      const V x[kRows] = {load_from(from[0][q]), load_from(from[1][q]), load_from(from[2][q]),
                          load_from(from[3][q])};
      rows[0][q] = x[0] - x[2];
      rows[1][q] = x[1] + x[2];
      rows[2][q] = x[2] - x[1];
      rows[3][q] = x[1] - x[3];
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      V along[kColumns];
      transform_frames(rows[r], along);
#pragma GCC unroll 6
      for (int q = 0; q < kColumns; ++q) store(to + (r * kColumns + q) * place, along[q]);
    }
  }

  template <int kBytes>
  static TASK_AWARE_INLINE void write(const ConvParams<T>& p, int64_t index, const T* sums, int64_t place) {
    constexpr int kLanes = kBytes / sizeof(T);
    using V = vector_t<T, kLanes>;
    const Tile tile(p, index);
    for (int64_t o = 0; o < p.K; o += kLanes) {
      const int64_t n = std::min<int64_t>(kLanes, p.K - o);
      V rows[kRows][kFrames];
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        V along[kColumns];
#pragma GCC unroll 6
        for (int q = 0; q < kColumns; ++q) along[q] = load<T, kLanes>(sums + (r * kColumns + q) * place + o);
        sum_frames(along, rows[r]);
      }
      const V bias = load<T, kLanes>(p.bias + o);
      T* const to = p.out + (tile.item + tile.band * p.frames + tile.frame) * p.K + o;
      const bool two = tile.band + 1 < p.F;
#pragma GCC unroll 4
      for (int t = 0; t < kFrames; ++t) {
        const V near = bias + rows[0][t] + rows[1][t] + rows[2][t],
                far = bias + rows[1][t] - rows[2][t] - rows[3][t];
        if (tile.frame + t >= p.frames) break;
        put(to + t * p.K, near, n);
        if (two) put(to + (p.frames + t) * p.K, far, n);
      }
    }
  }

  template <typename V>
  static TASK_AWARE_INLINE void put(T* to, V values, int64_t n) {
    n == kLanesOf<V> ? store(to, values) : store(to, values, n);
  }
};

Tensor conv3x3_cpu(const Tensor& x_in, const Tensor& weight, const Tensor& bias) {
  TASK_AWARE_CHECK(x_in.dim() == 4 && weight.dim() == 4 && weight.size(1) == x_in.size(1) &&
                       weight.size(2) == 3 && weight.size(3) == 3 && bias.dim() == 1 &&
                       bias.size(0) == weight.size(0),
                   "conv3x3: x must be [B,C,F,T], weight [K,C,3,3], bias [K].");
  for (const Tensor* tensor : {&weight, &bias}) {
    TASK_AWARE_CHECK(tensor->scalar_type() == x_in.scalar_type() && same_device(x_in, *tensor),
                     "conv3x3: the tensors must be of one dtype and on one device.");
  }
  using torch::stable::transpose;
  const Tensor x = torch::stable::contiguous(transpose(transpose(x_in, 1, 2), 2, 3));
  const int64_t B = x.size(0), K = weight.size(0);
  Tensor out = new_output(x, {B, x.size(1), x.size(2), K});
  if (out.numel() == 0) return transpose(transpose(out, 2, 3), 1, 2);
  dispatch_real(x.scalar_type(), "conv3x3", [&]<typename T>(TypeTag<T>) {
    ConvParams<T> p{};
    p.F = x.size(1), p.frames = x.size(2), p.C = x.size(3), p.K = K;
    for (int d = 0; d < 4; ++d) p.strides[d] = weight.stride(d);
    std::vector<T> transformed(kPlaces * p.matrix()), zeros(p.C, T(0)), biases(whole_panels(K), T(0));
    const Tensor plain = torch::stable::contiguous(bias);
    std::copy_n(plain.const_data_ptr<T>(), K, biases.begin());
    p.weight = weight.const_data_ptr<T>();
    p.out = transformed.data();
    parallel_for(0, p.C, grain_for(kPlaces * K), [&](int64_t begin, int64_t end) {
      ConvParams<T> share = p;
      share.begin = begin, share.end = end;
      run_vectorised<TransformWeight<T>>(share);
    });
    p.x = x.const_data_ptr<T>();
    p.weight = transformed.data();
    p.bias = biases.data();
    p.zeros = zeros.data();
    p.out = out.mutable_data_ptr<T>();
    p.tiles = B * p.rows_of_item() * p.tiles_of_row();
    parallel_for(0, (p.tiles + kTiles - 1) / kTiles, grain_for(kTiles * kPlaces * (p.C + K)),
                 [&](int64_t begin, int64_t end) {
                   ConvParams<T> share = p;
                   share.begin = begin, share.end = end;
                   run_vectorised<Convolve<T>>(share);
                 });
  });
  return transpose(transpose(out, 2, 3), 1, 2);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(task_aware, m) {
  m.def("conv3x3(Tensor x, Tensor weight, Tensor bias) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(task_aware, CPU, m) { m.impl("conv3x3", TORCH_BOX(&conv3x3_cpu)); }

}  // namespace task_aware
