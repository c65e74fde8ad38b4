// depthwise_prelu: y[b,c,t] = u if u > 0, else slope u
//   u[b,c,t] = bias[c] + sum over 0 <= k < 3 of weight[c,k] x[b,c,t + (k-1) dilation], zeros outside
//   x [B,C,T], weight [C,3], bias [C], slope [1]
// backward: v = grad u = grad y (1 if u > 0, else slope)
//   grad x[b,c,t] = sum over k of weight[c,k] v[b,c,t - (k-1) dilation]
//   grad weight[c,k] = sum over b, t of v[b,c,t] x[b,c,t + (k-1) dilation]
//   grad bias[c] = sum over b, t of v;   grad slope[c] = sum over b, t of grad y u where u <= 0, a part for each channel
//
// Traffic: forward x read, y written; backward x and grad y read, grad x written. u is computed again. A row (b,c) lies in
// the L1 cache with zeros around it. Threads share the rows, in the backward the channels, whose sums are one thread's.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "common/arguments.h"
#include "common/dispatch.h"
#include "common/parallel.h"
#include "cpu/pages.h"
#include "cpu/vectors.h"

namespace task_aware {
namespace {

constexpr int64_t kOverrun = 16;  // elements that a vector may reach beyond a row

template <typename T, typename A = accumulate_t<T>>
struct RowsParams {
  const T* x;
  const A* weight;
  const A* bias;
  A slope;
  const T* grad;                            // grad y, of the backward alone
  T* out;                                   // y or grad x
  A *grad_weight, *grad_bias, *grad_slope;  // of the backward alone
  int64_t B, C, frames, dilation;
  int64_t begin, end;  // rows (b,c), or channels in the backward
};

/// A row with `margin` zeros before it, and as many and a vector's overrun behind it.
template <typename A>
class PaddedRow {
 public:
  PaddedRow(int64_t length, int64_t margin)
      : margin_(margin), memory_(length + 2 * margin + kOverrun, A(0)) {}

  A* data() { return memory_.data() + margin_; }

  template <typename T>
  TASK_AWARE_INLINE void fill(const T* row, int64_t length) {
    for (int64_t t = 0; t < length; ++t) data()[t] = static_cast<A>(row[t]);
  }

 private:
  int64_t margin_;
  std::vector<A> memory_;
};

/// sum over k of taps[k] row[t + (k-1) dilation].
template <typename V, typename A>
TASK_AWARE_INLINE V convolved(const A* row, int64_t t, int64_t dilation, A before, A here, A after) {
  constexpr int kLanes = kLanesOf<V>;
  return before * load<A, kLanes>(row + t - dilation) + here * load<A, kLanes>(row + t) +
         after * load<A, kLanes>(row + t + dilation);
}

template <typename T>
struct ForwardRows {
  using A = accumulate_t<T>;

  template <int kBytes>
  static TASK_AWARE_INLINE void run(const RowsParams<T>& p) {
    constexpr int kLanes = kBytes / sizeof(A);
    using V = vector_t<A, kLanes>;
    PaddedRow<A> row(p.frames, p.dilation);
    for (int64_t index = p.begin; index < p.end; ++index) {
      const int64_t c = index % p.C;
      const A* const w = p.weight + 3 * c;
      row.fill(p.x + index * p.frames, p.frames);
      for_vectors<kLanes>(p.frames, [&](int64_t t, int count) TASK_AWARE_LAMBDA {
        const V u = convolved<V>(row.data(), t, p.dilation, w[0], w[1], w[2]) + p.bias[c];
        store(p.out + index * p.frames + t, u > A(0) ? u : p.slope * u, count);
      });
    }
  }
};

template <typename T>
struct BackwardChannels {
  using A = accumulate_t<T>;

  template <int kBytes>
  static TASK_AWARE_INLINE void run(const RowsParams<T>& p) {
    constexpr int kLanes = kBytes / sizeof(A);
    using V = vector_t<A, kLanes>;
    PaddedRow<A> row(p.frames, p.dilation), grad_u(p.frames, p.dilation);
    for (int64_t c = p.begin; c < p.end; ++c) {
      const A* const w = p.weight + 3 * c;
      V to_weight[3] = {}, to_bias{}, to_slope{};
      for (int64_t b = 0; b < p.B; ++b) {
        const int64_t at = (b * p.C + c) * p.frames;
        const A *const x = row.data(), *const v = grad_u.data();
        row.fill(p.x + at, p.frames);
        for_vectors<kLanes>(p.frames, [&](int64_t t, int count) TASK_AWARE_LAMBDA {
          const V u = convolved<V>(x, t, p.dilation, w[0], w[1], w[2]) + p.bias[c];
          const V grad = load<T, kLanes>(p.grad + at + t, count), value = u > A(0) ? grad : p.slope * grad;
          store(grad_u.data() + t, value, count);
          for (int k = 0; k < 3; ++k) to_weight[k] += value * load<A, kLanes>(x + t + (k - 1) * p.dilation);
          to_bias += value;
          to_slope += u > A(0) ? V{} : grad * u;
        });
        for_vectors<kLanes>(p.frames, [&](int64_t t, int count) TASK_AWARE_LAMBDA {
          store(p.out + at + t, convolved<V>(v, t, p.dilation, w[2], w[1], w[0]), count);
        });
      }
      for (int k = 0; k < 3; ++k) p.grad_weight[3 * c + k] = total(to_weight[k]);
      p.grad_bias[c] = total(to_bias);
      p.grad_slope[c] = total(to_slope);
    }
  }
};

template <typename T>
RowsParams<T> make_params(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& slope,
                          int64_t dilation) {
  using A = accumulate_t<T>;
  RowsParams<T> p{};
  p.x = x.const_data_ptr<T>();
  p.weight = weight.const_data_ptr<A>();
  p.bias = bias.const_data_ptr<A>();
  p.slope = *slope.const_data_ptr<A>();
  p.B = x.size(0);
  p.C = x.size(1);
  p.frames = x.size(2);
  p.dilation = dilation;
  return p;
}

Tensor depthwise_prelu_cpu(const Tensor& x_in, const Tensor& weight_in, const Tensor& bias_in,
                           const Tensor& slope, int64_t dilation) {
  check_depthwise_prelu_arguments(x_in, weight_in, bias_in, slope, dilation);
  const Tensor x = torch::stable::contiguous(x_in), weight = torch::stable::contiguous(weight_in),
               bias = torch::stable::contiguous(bias_in);
  Tensor out = new_output(x, x.sizes());
  if (x.numel() == 0) return out;
  dispatch_floating(x.scalar_type(), "depthwise_prelu", [&]<typename T>(TypeTag<T>) {
    RowsParams<T> p = make_params<T>(x, weight, bias, slope, dilation);
    p.out = out.mutable_data_ptr<T>();
    parallel_for(0, p.B * p.C, grain_for(p.frames), [&](int64_t begin, int64_t end) {
      RowsParams<T> share = p;
      share.begin = begin;
      share.end = end;
      run_vectorised<ForwardRows<T>>(share);
    });
  });
  return out;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> depthwise_prelu_backward_cpu(
    const Tensor& grad_in, const Tensor& x_in, const Tensor& weight_in, const Tensor& bias_in,
    const Tensor& slope, int64_t dilation) {
  check_depthwise_prelu_arguments(x_in, weight_in, bias_in, slope, dilation);
  const Tensor x = torch::stable::contiguous(x_in), weight = torch::stable::contiguous(weight_in),
               bias = torch::stable::contiguous(bias_in), grad = torch::stable::contiguous(grad_in);
  Tensor grad_x = new_output(x, x.sizes());
  Tensor grad_weight = torch::stable::new_zeros(weight, weight.sizes());
  Tensor grad_bias = torch::stable::new_zeros(bias, bias.sizes());
  Tensor grad_slope = torch::stable::new_zeros(bias, bias.sizes());
  if (x.numel() == 0) return {grad_x, grad_weight, grad_bias, grad_slope};
  dispatch_floating(x.scalar_type(), "depthwise_prelu", [&]<typename T>(TypeTag<T>) {
    using A = accumulate_t<T>;
    RowsParams<T> p = make_params<T>(x, weight, bias, slope, dilation);
    p.grad = grad.const_data_ptr<T>();
    p.out = grad_x.mutable_data_ptr<T>();
    p.grad_weight = grad_weight.mutable_data_ptr<A>();
    p.grad_bias = grad_bias.mutable_data_ptr<A>();
    p.grad_slope = grad_slope.mutable_data_ptr<A>();
    parallel_for(0, p.C, grain_for(p.B * p.frames), [&](int64_t begin, int64_t end) {
      RowsParams<T> share = p;
      share.begin = begin;
      share.end = end;
      run_vectorised<BackwardChannels<T>>(share);
    });
  });
  return {grad_x, grad_weight, grad_bias, grad_slope};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(task_aware, m) {
  m.def("depthwise_prelu(Tensor x, Tensor weight, Tensor bias, Tensor slope, int dilation) -> Tensor");
  m.def(
      "depthwise_prelu_backward(Tensor grad, Tensor x, Tensor weight, Tensor bias, Tensor slope, int "
      "dilation)"
      " -> (Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(task_aware, CPU, m) {
  m.impl("depthwise_prelu", TORCH_BOX(&depthwise_prelu_cpu));
  m.impl("depthwise_prelu_backward", TORCH_BOX(&depthwise_prelu_backward_cpu));
}

}  // namespace task_aware
