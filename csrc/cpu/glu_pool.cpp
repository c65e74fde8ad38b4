// glu_pool: out[b,c,i,j] = mean over 0 <= r < p, 0 <= q < n of linear[b,c,ip+r,jn+q] * sigmoid(x[b,c,ip+r,jn+q])
//           linear[b,c,f,t] = bias[c] + sum over k of weight[c,k] x[b,k,f,t]
//           x [B,C,F,T], weight [C,C], bias [C]; pool of p mel bands and n frames; out [B,C,F/p,T/n], rounded down
// backward: with g = grad[b,c,f/p,t/n] / (p n), of positions that no pool reaches 0,
//           grad x[k] = g[k] linear[k] sigmoid'(x[k]) + sum over c of weight[c,k] g[c] sigmoid(x[c])
//
// A tile of positions of one (b, mel band) is a small matrix product with all channels in the L1 cache: the
// gate, the pooling and, in the backward, the product's second half happen there, so the linear map is never written;
// the backward computes it again. Threads share the rows (b, i). Traffic: forward x read, out written; backward x
// and grad read, grad x written. The limit is the 2 C (4 C in the backward) operations of each value of x.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <vector>

#include "common/arguments.h"
#include "common/dispatch.h"
#include "common/parallel.h"
#include "cpu/fast_math.h"
#include "cpu/vectors.h"

namespace task_aware {
namespace {

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
  const T* x;
  const A* weight;      // packed
  const A* transposed;  // packed, of the backward alone
  const A* bias;
  const T* grad;  // of the backward alone
  T* out;         // out or grad x
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

/// One thread's share, a tile of one (b, i) after the other.
template <typename T, bool kBackward>
struct GluPool {
  using A = accumulate_t<T>;

  /// Arrays of [C,tile].
  struct Tiles {
    std::vector<A> memory;
    A *x, *gate, *pooled, *through_linear, *through_gate;  // the last two of the backward

    explicit Tiles(int64_t size) : memory((kBackward ? 5 : 3) * size) {
      A* next = memory.data();
      for (A** tile : {&x, &gate, &pooled, &through_linear, &through_gate}) {
        *tile = next;
        next += size;
      }
    }
  };

  /// Positions that are computed for `count` of them.
  static int64_t width_of(int64_t count) { return (count + kLeastTile - 1) / kLeastTile * kLeastTile; }

  template <int kBytes>
  static TASK_AWARE_INLINE void run(const GluParams<T>& p) {
    const int64_t tile = p.tile / p.n * p.n, used = p.pooled_frames() * p.n;
    Tiles tiles(p.C * p.tile);
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
          read<kBytes>(p, tiles, b, f, t, count);
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
                  if (k + kLanes <= count) {
                    store(to, value);
                  } else if (k < count) {
                    store(to, value, count - k);
                  }
                });
  }
};

template <bool kBackward>
void glu_pool(const Tensor* grad, const Tensor& x, const Tensor& weight_in, const Tensor& bias_in,
              int64_t mel, int64_t time, Tensor& out) {
  const Tensor weight = torch::stable::contiguous(weight_in), bias = torch::stable::contiguous(bias_in);
  dispatch_floating(x.scalar_type(), "glu_pool", [&]<typename T>(TypeTag<T>) {
    using A = accumulate_t<T>;
    const int64_t C = x.size(1);
    const std::vector<A> matrix = packed(weight.const_data_ptr<A>(), C, false);
    std::vector<A> transposed;
    if (kBackward) transposed = packed(weight.const_data_ptr<A>(), C, true);
    GluParams<T> p{};
    p.x = x.const_data_ptr<T>();
    p.weight = matrix.data();
    p.transposed = transposed.data();
    p.bias = bias.const_data_ptr<A>();
    p.grad = grad ? grad->const_data_ptr<T>() : nullptr;
    p.out = out.mutable_data_ptr<T>();
    p.C = C;
    p.F = x.size(2);
    p.frames = x.size(3);
    p.p = mel;
    p.n = time;
    constexpr int64_t kTileBytes = 16 << 10;  // half of an L1 cache, in runs as long as can be
    const int64_t fits = kTileBytes / static_cast<int64_t>(sizeof(A)) / std::max<int64_t>(1, C);
    p.tile = std::clamp(fits / kLeastTile * kLeastTile, kLeastTile, kMostTile);
    parallel_for(0, x.size(0) * p.bands(), grain_for(C * mel * p.frames), [&](int64_t begin, int64_t end) {
      GluParams<T> share = p;
      share.begin = begin;
      share.end = end;
      run_vectorised<GluPool<T, kBackward>>(share);
    });
  });
}

Tensor glu_pool_cpu(const Tensor& x_in, const Tensor& weight, const Tensor& bias, int64_t mel, int64_t time) {
  check_glu_pool_arguments(x_in, weight, bias, mel, time);
  const Tensor x = torch::stable::contiguous(x_in);
  Tensor out = torch::stable::new_empty(x, {x.size(0), x.size(1), x.size(2) / mel, x.size(3) / time});
  if (out.numel() > 0) glu_pool<false>(nullptr, x, weight, bias, mel, time, out);
  return out;
}

Tensor glu_pool_backward_cpu(const Tensor& grad_in, const Tensor& x_in, const Tensor& weight,
                             const Tensor& bias, int64_t mel, int64_t time) {
  check_glu_pool_arguments(x_in, weight, bias, mel, time);
  const Tensor x = torch::stable::contiguous(x_in), grad = torch::stable::contiguous(grad_in);
  const bool all_pooled = x.size(2) % mel == 0 && x.size(3) % time == 0;
  Tensor grad_x =
      all_pooled ? torch::stable::new_empty(x, x.sizes()) : torch::stable::new_zeros(x, x.sizes());
  if (grad.numel() > 0) glu_pool<true>(&grad, x, weight, bias, mel, time, grad_x);
  return grad_x;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(task_aware, m) {
  m.def("glu_pool(Tensor x, Tensor weight, Tensor bias, int mel, int time) -> Tensor");
  m.def("glu_pool_backward(Tensor grad, Tensor x, Tensor weight, Tensor bias, int mel, int time) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(task_aware, CPU, m) {
  m.impl("glu_pool", TORCH_BOX(&glu_pool_cpu));
  m.impl("glu_pool_backward", TORCH_BOX(&glu_pool_backward_cpu));
}

}  // namespace task_aware
