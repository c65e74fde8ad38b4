// glu_pool: out[b,c,i,j] = mean over 0 <= r < p, 0 <= q < n of linear[b,c,ip+r,jn+q] * sigmoid(x[b,c,ip+r,jn+q])
//           linear[b,c,f,t] = bias[c] + sum over k of weight[c,k] x[b,k,f,t]
//           x [B,C,F,T], weight [C,C], bias [C]; pool of p mel bands and n frames; out [B,C,F/p,T/n], rounded down
// backward: with g = grad[b,c,f/p,t/n] / (p n), of positions that no pool reaches 0,
//           grad x[k] = g[k] linear[k] sigmoid'(x[k]) + sum over c of weight[c,k] g[c] sigmoid(x[c])
// conv_glu_pool: the same of x[b,c,f,t] = shift[c] + sum over 0 <= i, j < 3 of kernel[c,i,j] features[b,f+i-1,t+j-1],
//           zeros outside; features [B,F,T], kernel [C,3,3], shift [C]
// backward: plane[b,f,i,t] = sum over c, j of kernel[c,i,j] grad x[b,c,f,t-j+1]
//           grad features[b,f,t] = sum over i of plane[b,f-i+1,i,t]
//
// x, grad and out lie channels last, as the convolutions around want them; others are copied. Threads share the rows
// (b, i) and go through them in tiles (glu_pool_tile.h). Traffic: forward x read, out written;
// backward x and grad read, grad x written. The limit is the 2 C (4 C in the backward) operations of each value of x.
// Factors of bfloat16 products are rounded to it, sums are float32.
// A convolution adds 18 operations to that (36 in the backward), and its output, C times the features, is never
// written either.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <vector>

#include "common/arguments.h"
#include "common/dispatch.h"
#include "common/parallel.h"
#include "cpu/glu_pool_tile.h"
#include "cpu/pages.h"

namespace task_aware {
namespace {

/// grad features of a row (b, f).
template <typename T>
void join_planes(const GluParams<T>& p, int64_t row) {
  using A = accumulate_t<T>;
  const int64_t f = row % p.F;
  const A* const plane = p.planes + 3 * row * p.frames;
  const A* const below = f > 0 ? plane - p.frames : nullptr;            // i = 2 of f - 1
  const A* const above = f + 1 < p.F ? plane + 3 * p.frames : nullptr;  // i = 0 of f + 1
  for (int64_t t = 0; t < p.frames; ++t) {
    p.out[row * p.frames + t] =
        static_cast<T>((below ? below[t] : A(0)) + plane[p.frames + t] + (above ? above[t] : A(0)));
  }
}

/// What a convolution before the gate adds to the arguments.
struct Convolution {
  const Tensor& kernel;
  const Tensor& shift;
};

/// [B,C,F,T] as it lies channels last, [B,F,T,C], and back.
Tensor with_channels_last(const Tensor& x) {
  return torch::stable::transpose(torch::stable::transpose(x, 1, 2), 2, 3);
}
Tensor with_channels_second(const Tensor& x) {
  return torch::stable::transpose(torch::stable::transpose(x, 2, 3), 1, 2);
}

/// The elements of a vector, and zeros to the end of its last panel.
template <typename A>
std::vector<A> padded(const Tensor& vector) {
  std::vector<A> result(whole_panels(vector.numel()), A(0));
  std::copy_n(vector.const_data_ptr<A>(), vector.numel(), result.begin());
  return result;
}

/// Of x, grad and out channels last.
template <bool kBackward, bool kConvolved>
void glu_pool(const Tensor* grad, const Tensor& x, const Convolution* convolution, const Tensor& weight_in,
              const Tensor& bias_in, int64_t mel, int64_t time, Tensor& out, Tensor* planes = nullptr) {
  const Tensor weight = torch::stable::contiguous(weight_in), bias = torch::stable::contiguous(bias_in);
  const Tensor kernel = kConvolved ? torch::stable::contiguous(convolution->kernel) : weight;
  const Tensor shift = kConvolved ? torch::stable::contiguous(convolution->shift) : bias;
  dispatch_floating(x.scalar_type(), "glu_pool", [&]<typename T>(TypeTag<T>) {
    using A = accumulate_t<T>;
    const int64_t C = weight.size(0);
    const A *const weights = weight.const_data_ptr<A>(), *const kernels = kernel.const_data_ptr<A>();
    const std::vector<T> forward = panels<T>(weights, C, C, 1, C);
    const std::vector<A> biases = padded<A>(bias);
    std::vector<T> backward, spreading;
    std::vector<A> taps, shifts;
    if (kBackward) backward = panels<T>(weights, C, C, C, 1);
    if (kConvolved) taps = panels<A>(kernels, kTaps, C, 1, kTaps), shifts = padded<A>(shift);
    if (kConvolved && kBackward) spreading = panels<T>(kernels, C, kTaps, kTaps, 1);
    GluParams<T> p{};
    p.x = x.const_data_ptr<T>();
    p.taps = taps.data();
    p.shift = shifts.data();
    p.spreading = spreading.data();
    p.weight = forward.data();
    p.transposed = backward.data();
    p.bias = biases.data();
    p.grad = grad ? grad->const_data_ptr<T>() : nullptr;
    p.out = out.mutable_data_ptr<T>();
    p.planes = planes ? planes->mutable_data_ptr<A>() : nullptr;
    p.C = C;
    p.F = x.size(1);
    p.frames = x.size(2);
    p.p = mel;
    p.n = time;
    constexpr int64_t kTileBytes = 12 << 10;  // a third of an L1 cache
    const int64_t fits = kTileBytes / static_cast<int64_t>(sizeof(A)) / p.width();
    p.tile = std::max<int64_t>(1, std::clamp<int64_t>(fits, 24, 192) / time) * time;
    parallel_for(0, x.size(0) * p.bands(), grain_for(C * mel * p.frames), [&](int64_t begin, int64_t end) {
      GluParams<T> share = p;
      share.begin = begin;
      share.end = end;
      run_vectorised<GluPool<T, kBackward, kConvolved>>(share);
    });
    if constexpr (kBackward && kConvolved) {
      parallel_for(0, x.size(0) * p.F, grain_for(3 * p.frames), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) join_planes(p, row);
      });
    }
  });
}

Tensor glu_pool_cpu(const Tensor& x_in, const Tensor& weight, const Tensor& bias, int64_t mel, int64_t time) {
  check_glu_pool_arguments(x_in, weight, bias, mel, time);
  const Tensor x = torch::stable::contiguous(with_channels_last(x_in));
  Tensor out = new_output(x, {x.size(0), x.size(1) / mel, x.size(2) / time, x.size(3)});
  if (out.numel() > 0) glu_pool<false, false>(nullptr, x, nullptr, weight, bias, mel, time, out);
  return with_channels_second(out);
}

Tensor glu_pool_backward_cpu(const Tensor& grad_in, const Tensor& x_in, const Tensor& weight,
                             const Tensor& bias, int64_t mel, int64_t time) {
  check_glu_pool_arguments(x_in, weight, bias, mel, time);
  const Tensor x = torch::stable::contiguous(with_channels_last(x_in)),
               grad = torch::stable::contiguous(with_channels_last(grad_in));
  Tensor grad_x = new_output(x, x.sizes());
  if (grad.numel() > 0) glu_pool<true, false>(&grad, x, nullptr, weight, bias, mel, time, grad_x);
  return with_channels_second(grad_x);
}

Tensor conv_glu_pool_cpu(const Tensor& features_in, const Tensor& kernel, const Tensor& shift,
                         const Tensor& weight, const Tensor& bias, int64_t mel, int64_t time) {
  check_conv_glu_pool_arguments(features_in, kernel, shift, weight, bias, mel, time);
  const Tensor features = torch::stable::contiguous(features_in);
  Tensor out = new_output(
      features, {features.size(0), features.size(1) / mel, features.size(2) / time, weight.size(0)});
  const Convolution convolution{kernel, shift};
  if (out.numel() > 0) glu_pool<false, true>(nullptr, features, &convolution, weight, bias, mel, time, out);
  return with_channels_second(out);
}

Tensor conv_glu_pool_backward_cpu(const Tensor& grad_in, const Tensor& features_in, const Tensor& kernel,
                                  const Tensor& shift, const Tensor& weight, const Tensor& bias, int64_t mel,
                                  int64_t time) {
  check_conv_glu_pool_arguments(features_in, kernel, shift, weight, bias, mel, time);
  const Tensor features = torch::stable::contiguous(features_in),
               grad = torch::stable::contiguous(with_channels_last(grad_in));
  Tensor grad_features = torch::stable::new_zeros(features, features.sizes());
  if (grad.numel() == 0) return grad_features;
  Tensor planes = torch::stable::new_zeros(weight, {features.size(0), features.size(1), 3, features.size(2)});
  const Convolution convolution{kernel, shift};
  glu_pool<true, true>(&grad, features, &convolution, weight, bias, mel, time, grad_features, &planes);
  return grad_features;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(task_aware, m) {
  m.def("glu_pool(Tensor x, Tensor weight, Tensor bias, int mel, int time) -> Tensor");
  m.def("glu_pool_backward(Tensor grad, Tensor x, Tensor weight, Tensor bias, int mel, int time) -> Tensor");
  m.def(
      "conv_glu_pool(Tensor features, Tensor kernel, Tensor shift, Tensor weight, Tensor bias, int mel, int "
      "time)"
      " -> Tensor");
  m.def(
      "conv_glu_pool_backward(Tensor grad, Tensor features, Tensor kernel, Tensor shift, Tensor weight, "
      "Tensor bias,"
      " int mel, int time) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(task_aware, CPU, m) {
  m.impl("glu_pool", TORCH_BOX(&glu_pool_cpu));
  m.impl("glu_pool_backward", TORCH_BOX(&glu_pool_backward_cpu));
  m.impl("conv_glu_pool", TORCH_BOX(&conv_glu_pool_cpu));
  m.impl("conv_glu_pool_backward", TORCH_BOX(&conv_glu_pool_backward_cpu));
}

}  // namespace task_aware
