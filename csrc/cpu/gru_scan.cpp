// gru_scan: with pre = h[t-1] weight' + bias, all of [H] for the gates r, z, n (h[-1] = 0; direction 1 runs from the end)
//           r = sigmoid(gates_r + pre_r), z = sigmoid(gates_z + pre_z), n = tanh(gates_n + r pre_n)
//           h[t] = (1 - z) n + z h[t-1]
//           gates [B,T,D,3H], weight [D,3H,H], bias [D,3H]; out = h [B,T,D,H]
// backward: with dh the gradient of h[t], from out and from h[t+1],
//           dz = dh (h[t-1] - n) z (1-z), dn = dh (1-z) (1-n^2), dr = dn pre_n r (1-r)
//           grad gates = (dr, dz, dn);  dh[t-1] = dh z + (dr, dz, r dn) weight
//
// Up to eight items of a batch, in one direction, are a unit that a thread carries from the first frame to the last: their
// states stay in the L1 cache, the weights, in the order in which they are read, in the L2 cache. Three gates of a vector of
// units for all items are summed in registers and become the new state there. The backward computes the gates
// again from out. The limit is the 6 H^2 operations (18 H^2 in the backward) of each item and frame.

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

constexpr int64_t kMostRows = 8;  // items of a unit

/// Columns that matrices are packed in: two vectors of the widest kind.
template <typename A>
constexpr int64_t kPacked = 128 / sizeof(A);

template <typename A>
int64_t blocks_of(int64_t columns) {
  return (columns + kPacked<A> - 1) / kPacked<A>;
}

/// For each direction the columns of a gate as products of a state with weight' read them: [H / kPacked, H, 3, kPacked],
/// zeros beyond the last column.
template <typename A>
std::vector<A> pack_gates(const A* weight, int64_t D, int64_t H) {
  const int64_t blocks = blocks_of<A>(H);
  std::vector<A> result(D * blocks * H * 3 * kPacked<A>, A(0));
  for (int64_t d = 0; d < D; ++d) {
    for (int64_t gate = 0; gate < 3; ++gate) {
      for (int64_t j = 0; j < H; ++j) {
        const A* const row = weight + ((d * 3 + gate) * H + j) * H;
        A* const to = result.data() + (d * blocks + j / kPacked<A>)*H * 3 * kPacked<A> + gate * kPacked<A> +
                      j % kPacked<A>;
        for (int64_t k = 0; k < H; ++k) to[k * 3 * kPacked<A>] = row[k];
      }
    }
  }
  return result;
}

/// For each direction the weight as products of gate gradients with it read it: [H / kPacked, 3H, kPacked].
template <typename A>
std::vector<A> pack_rows(const A* weight, int64_t D, int64_t H) {
  const int64_t blocks = blocks_of<A>(H);
  std::vector<A> result(D * blocks * 3 * H * kPacked<A>, A(0));
  for (int64_t row = 0; row < D * 3 * H; ++row) {
    for (int64_t j = 0; j < H; ++j) {
      const int64_t block = row / (3 * H) * blocks + j / kPacked<A>;
      result[(block * 3 * H + row % (3 * H)) * kPacked<A> + j % kPacked<A>] = weight[row * H + j];
    }
  }
  return result;
}

template <typename T, typename A = accumulate_t<T>>
struct GruParams {
  const T* gates;
  const A* weight;  // by pack_gates
  const A* rows;    // by pack_rows, of the backward alone
  const A* bias;
  const T* h;     // of the backward alone
  const T* grad;  // of the backward alone
  T* out;         // out or grad gates
  int64_t B, frames, D, H;
  int64_t units_per_direction;
  int64_t begin, end;  // units

  int64_t blocks() const { return blocks_of<A>(H); }
  int64_t width() const { return blocks() * kPacked<A>; }
  /// First element of an item's frame in an array of `columns` a direction.
  int64_t at(int64_t b, int64_t t, int64_t d, int64_t columns) const {
    return ((b * frames + t) * D + d) * columns;
  }
};

template <typename T, bool kBackward>
struct GruScan {
  using A = accumulate_t<T>;

  /// Rows of `width` units; what lies beyond H stays zero in all of them.
  struct Arrays {
    std::vector<A> memory;
    A *state, *next;  // h[t-1] and h[t]; in the backward h[t-1] and dh
    A* through;       // [3] rows each: (dr, dz, r dn), of the backward alone

    Arrays(int64_t rows, int64_t width) : memory((kBackward ? 5 : 2) * rows * width, A(0)) {
      state = memory.data();
      next = state + rows * width;
      through = next + rows * width;
    }
  };

  /// One vector of units of one item: pre, then the gates and the new state.
  template <typename V>
  struct Cell {
    V r, z, n, pre;

    TASK_AWARE_INLINE Cell(const GruParams<T>& p, const T* gates, int64_t d, int64_t j, const V* sum,
                           int64_t count) {
      constexpr int kLanes = kLanesOf<V>;
      const A* const bias = p.bias + d * 3 * p.H + j;
      const auto input = [&](int64_t gate)
                             TASK_AWARE_LAMBDA { return at_most<T, kLanes>(gates + gate * p.H + j, count); };
      const auto shift = [&](int64_t gate)
                             TASK_AWARE_LAMBDA { return at_most<A, kLanes>(bias + gate * p.H, count); };
      r = sigmoid(input(0) + (sum[0] + shift(0)));
      z = sigmoid(input(1) + (sum[1] + shift(1)));
      pre = sum[2] + shift(2);
      n = 2 * sigmoid(2 * (input(2) + r * pre)) - 1;
    }
  };

  /// The first `count` values, zeros after them.
  template <typename From, int kLanes>
  static TASK_AWARE_INLINE auto at_most(const From* from, int64_t count) {
    return count >= kLanes ? load<From, kLanes>(from) : load<From, kLanes>(from, count);
  }
  template <typename To, typename V>
  static TASK_AWARE_INLINE void put(To* to, V values, int64_t count) {
    count >= kLanesOf<V> ? store(to, values) : store(to, values, count);
  }

  template <int kBytes>
  static TASK_AWARE_INLINE void run(const GruParams<T>& p) {
    for (int64_t unit = p.begin; unit < p.end; ++unit) {
      const int64_t d = unit / p.units_per_direction, index = unit % p.units_per_direction;
      const int64_t first = p.B * index / p.units_per_direction,
                    last = p.B * (index + 1) / p.units_per_direction;
      split<kBytes>(p, d, first, last);
    }
  }

  /// Items in groups whose sums fit the registers.
  template <int kBytes>
  static TASK_AWARE_INLINE void split(const GruParams<T>& p, int64_t d, int64_t first, int64_t last) {
    if constexpr (kBytes == 64) {
      const int64_t rows = last - first;
      if (rows > 6) return scan<kBytes, 8>(p, d, first, rows);
      if (rows > 4) return scan<kBytes, 6>(p, d, first, rows);
    }
    for (; first < last; first += 4) {
      const int64_t rows = std::min<int64_t>(4, last - first);
      rows > 2 ? scan<kBytes, 4>(p, d, first, rows) : scan<kBytes, 2>(p, d, first, rows);
    }
  }

  /// All frames of `rows` items, at most kRows.
  template <int kBytes, int kRows>
  static TASK_AWARE_INLINE void scan(const GruParams<T>& p, int64_t d, int64_t b, int64_t rows) {
    Arrays arrays(kRows, p.width());
    for (int64_t step = 0; step < p.frames; ++step) {
      const bool upwards = (d == 0) != kBackward;
      const int64_t t = upwards ? step : p.frames - 1 - step;
      if constexpr (kBackward) {
        backward<kBytes, kRows>(p, arrays, d, b, rows, t);
      } else {
        forward<kBytes, kRows>(p, arrays, d, b, rows, t);
      }
    }
  }

  /// visit(j, sums [3][kRows]) for each vector of units j: the state's products with the three gates' weights.
  template <typename V, int kRows, typename Visit>
  static TASK_AWARE_INLINE void multiply_gates(const GruParams<T>& p, const A* state, int64_t d,
                                               Visit visit) {
    constexpr int kLanes = kLanesOf<V>;
    const int64_t width = p.width();
    for (int64_t j = 0; j < p.H; j += kLanes) {
      const A* weight = p.weight + (d * p.blocks() + j / kPacked<A>)*p.H * 3 * kPacked<A> + j % kPacked<A>;
      V sum[kRows][3] = {};
      for (int64_t k = 0; k < p.H; ++k, weight += 3 * kPacked<A>) {
        const V r = load<A, kLanes>(weight), z = load<A, kLanes>(weight + kPacked<A>),
                n = load<A, kLanes>(weight + 2 * kPacked<A>);
        for (int row = 0; row < kRows; ++row) {
          const A value = state[row * width + k];
          sum[row][0] += value * r;
          sum[row][1] += value * z;
          sum[row][2] += value * n;
        }
      }
      visit(j, sum);
    }
  }

  template <int kBytes, int kRows>
  static TASK_AWARE_INLINE void forward(const GruParams<T>& p, Arrays& arrays, int64_t d, int64_t b,
                                        int64_t rows, int64_t t) {
    constexpr int kLanes = kBytes / sizeof(A);
    using V = vector_t<A, kLanes>;
    const int64_t width = p.width();
    multiply_gates<V, kRows>(p, arrays.state, d, [&](int64_t j, const V(&sum)[kRows][3]) TASK_AWARE_LAMBDA {
      const int64_t count = p.H - j;
      for (int64_t row = 0; row < rows; ++row) {
        const Cell<V> cell(p, p.gates + p.at(b + row, t, d, 3 * p.H), d, j, sum[row], count);
        const V before = load<A, kLanes>(arrays.state + row * width + j);
        const V h = cell.n + cell.z * (before - cell.n);
        put(arrays.next + row * width + j, h, count);
        put(p.out + p.at(b + row, t, d, p.H) + j, h, count);
      }
    });
    std::swap(arrays.state, arrays.next);
  }

  template <int kBytes, int kRows>
  static TASK_AWARE_INLINE void backward(const GruParams<T>& p, Arrays& arrays, int64_t d, int64_t b,
                                         int64_t rows, int64_t t) {
    constexpr int kLanes = kBytes / sizeof(A);
    using V = vector_t<A, kLanes>;
    const int64_t width = p.width(), before = d == 0 ? t - 1 : t + 1;
    const bool begins = before < 0 || before == p.frames;
    for (int64_t row = 0; row < rows; ++row) {
      const T* const h = p.h + (begins ? 0 : p.at(b + row, before, d, p.H));
      for (int64_t j = 0; j < p.H; j += kLanes) {
        const V value = begins ? V{} : at_most<T, kLanes>(h + j, p.H - j);
        put(arrays.state + row * width + j, value, p.H - j);
      }
    }
    multiply_gates<V, kRows>(p, arrays.state, d, [&](int64_t j, const V(&sum)[kRows][3]) TASK_AWARE_LAMBDA {
      const int64_t count = p.H - j;
      for (int64_t row = 0; row < rows; ++row) {
        const Cell<V> cell(p, p.gates + p.at(b + row, t, d, 3 * p.H), d, j, sum[row], count);
        A* const carried = arrays.next + row * width + j;
        const V dh =
            load<A, kLanes>(carried) + at_most<T, kLanes>(p.grad + p.at(b + row, t, d, p.H) + j, count);
        const V state = load<A, kLanes>(arrays.state + row * width + j);
        const V dz = dh * (state - cell.n) * cell.z * (1 - cell.z);
        const V dn = dh * (1 - cell.z) * (1 - cell.n * cell.n);
        const V dr = dn * cell.pre * cell.r * (1 - cell.r);
        put(carried, dh * cell.z, count);
        A* const through = arrays.through + row * 3 * p.H + j;
        T* const to = p.out + p.at(b + row, t, d, 3 * p.H) + j;
        put(through, dr, count);
        put(through + p.H, dz, count);
        put(through + 2 * p.H, cell.r * dn, count);
        put(to, dr, count);
        put(to + p.H, dz, count);
        put(to + 2 * p.H, dn, count);
      }
    });
    multiply_rows<V, kRows>(p, arrays, d);
  }

  /// carried += (dr, dz, r dn) weight
  template <typename V, int kRows>
  static TASK_AWARE_INLINE void multiply_rows(const GruParams<T>& p, const Arrays& arrays, int64_t d) {
    constexpr int kLanes = kLanesOf<V>;
    const int64_t width = p.width();
    for (int64_t j = 0; j < p.H; j += 2 * kLanes) {
      const A* weight = p.rows + (d * p.blocks() + j / kPacked<A>)*3 * p.H * kPacked<A> + j % kPacked<A>;
      V sum[kRows][2] = {};
      for (int64_t k = 0; k < 3 * p.H; ++k, weight += kPacked<A>) {
        const V low = load<A, kLanes>(weight), high = load<A, kLanes>(weight + kLanes);
        for (int row = 0; row < kRows; ++row) {
          const A value = arrays.through[row * 3 * p.H + k];
          sum[row][0] += value * low;
          sum[row][1] += value * high;
        }
      }
      for (int row = 0; row < kRows; ++row) {
        for (int v = 0; v < 2; ++v) {
          A* const carried = arrays.next + row * width + j + v * kLanes;
          store(carried, load<A, kLanes>(carried) + sum[row][v]);
        }
      }
    }
  }
};

template <bool kBackward>
void gru_scan(const Tensor* grad, const Tensor* h, const Tensor& gates, const Tensor& weight_in,
              const Tensor& bias_in, Tensor& out) {
  const Tensor weight = torch::stable::contiguous(weight_in), bias = torch::stable::contiguous(bias_in);
  dispatch_floating(gates.scalar_type(), "gru_scan", [&]<typename T>(TypeTag<T>) {
    using A = accumulate_t<T>;
    GruParams<T> p{};
    p.B = gates.size(0);
    p.frames = gates.size(1);
    p.D = gates.size(2);
    p.H = weight.size(2);
    const std::vector<A> packed = pack_gates(weight.const_data_ptr<A>(), p.D, p.H);
    std::vector<A> rows;
    if (kBackward) rows = pack_rows(weight.const_data_ptr<A>(), p.D, p.H);
    p.gates = gates.const_data_ptr<T>();
    p.weight = packed.data();
    p.rows = rows.data();
    p.bias = bias.const_data_ptr<A>();
    p.h = h ? h->const_data_ptr<T>() : nullptr;
    p.grad = grad ? grad->const_data_ptr<T>() : nullptr;
    p.out = out.mutable_data_ptr<T>();
    p.units_per_direction = (p.B + kMostRows - 1) / kMostRows;
    parallel_for(0, p.D * p.units_per_direction, 1, [&](int64_t begin, int64_t end) {
      GruParams<T> share = p;
      share.begin = begin;
      share.end = end;
      run_vectorised<GruScan<T, kBackward>>(share);
    });
  });
}

Tensor gru_scan_cpu(const Tensor& gates_in, const Tensor& weight, const Tensor& bias) {
  check_gru_scan_arguments(gates_in, weight, bias);
  const Tensor gates = torch::stable::contiguous(gates_in);
  Tensor out = torch::stable::new_empty(gates, {gates.size(0), gates.size(1), gates.size(2), weight.size(2)});
  if (out.numel() > 0) gru_scan<false>(nullptr, nullptr, gates, weight, bias, out);
  return out;
}

Tensor gru_scan_backward_cpu(const Tensor& grad_in, const Tensor& h_in, const Tensor& gates_in,
                             const Tensor& weight, const Tensor& bias) {
  check_gru_scan_arguments(gates_in, weight, bias);
  const Tensor gates = torch::stable::contiguous(gates_in), h = torch::stable::contiguous(h_in),
               grad = torch::stable::contiguous(grad_in);
  Tensor grad_gates = torch::stable::new_empty(gates, gates.sizes());
  if (grad_gates.numel() > 0) gru_scan<true>(&grad, &h, gates, weight, bias, grad_gates);
  return grad_gates;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(task_aware, m) {
  m.def("gru_scan(Tensor gates, Tensor weight, Tensor bias) -> Tensor");
  m.def("gru_scan_backward(Tensor grad, Tensor h, Tensor gates, Tensor weight, Tensor bias) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(task_aware, CPU, m) {
  m.impl("gru_scan", TORCH_BOX(&gru_scan_cpu));
  m.impl("gru_scan_backward", TORCH_BOX(&gru_scan_backward_cpu));
}

}  // namespace task_aware
