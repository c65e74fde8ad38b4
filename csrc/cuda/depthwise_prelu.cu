// depthwise_prelu on tensors; depthwise_prelu.cuh holds the kernels.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <limits>
#include <tuple>

#include "common/arguments.h"
#include "common/dispatch.h"
#include "cuda/depthwise_prelu.cuh"
#include "cuda/scope.h"

namespace task_aware {
namespace {

template <typename T>
DepthwiseParams<T> make_params(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& slope,
                               int64_t dilation, Tensor& out) {
  using A = accumulate_t<T>;
  TASK_AWARE_CHECK(x.size(1) * kSums <= std::numeric_limits<int32_t>::max() &&
                       x.size(2) <= std::numeric_limits<int32_t>::max() / 2,
                   "depthwise_prelu: the clips have too many channels or frames for one call.");
  DepthwiseParams<T> p{};
  p.x = x.const_data_ptr<T>();
  p.weight = weight.const_data_ptr<A>();
  p.bias = bias.const_data_ptr<A>();
  p.slope = slope.const_data_ptr<A>();
  p.out = out.mutable_data_ptr<T>();
  p.rows = x.size(0) * x.size(1);
  p.C = static_cast<int>(x.size(1));
  p.frames = static_cast<int>(x.size(2));
  p.dilation = dilation;
  return p;
}

Tensor depthwise_prelu_cuda(const Tensor& x_in, const Tensor& weight_in, const Tensor& bias_in,
                            const Tensor& slope, int64_t dilation) {
  check_depthwise_prelu_arguments(x_in, weight_in, bias_in, slope, dilation);
  const CudaScope scope(x_in);
  const Tensor x = torch::stable::contiguous(x_in), weight = torch::stable::contiguous(weight_in),
               bias = torch::stable::contiguous(bias_in);
  Tensor out = torch::stable::new_empty(x, x.sizes());
  if (x.numel() == 0) return out;
  dispatch_floating(x.scalar_type(), "depthwise_prelu", [&]<typename T>(TypeTag<T>) {
    launch_depthwise_prelu<false>(make_params<T>(x, weight, bias, slope, dilation, out), scope.stream);
  });
  return out;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> depthwise_prelu_backward_cuda(
    const Tensor& grad_in, const Tensor& x_in, const Tensor& weight_in, const Tensor& bias_in,
    const Tensor& slope, int64_t dilation) {
  check_depthwise_prelu_arguments(x_in, weight_in, bias_in, slope, dilation);
  const CudaScope scope(x_in);
  const Tensor x = torch::stable::contiguous(x_in), weight = torch::stable::contiguous(weight_in),
               bias = torch::stable::contiguous(bias_in), grad = torch::stable::contiguous(grad_in);
  Tensor grad_x = torch::stable::new_empty(x, x.sizes());
  const auto new_sums = [&](const Tensor& like) {
    return x.numel() == 0 ? torch::stable::new_zeros(like, like.sizes())
                          : torch::stable::new_empty(like, like.sizes());
  };
  Tensor grad_weight = new_sums(weight), grad_bias = new_sums(bias), grad_slope = new_sums(bias);
  if (x.numel() == 0) return {grad_x, grad_weight, grad_bias, grad_slope};
  dispatch_floating(x.scalar_type(), "depthwise_prelu", [&]<typename T>(TypeTag<T>) {
    using A = accumulate_t<T>;
    DepthwiseParams<T> p = make_params<T>(x, weight, bias, slope, dilation, grad_x);
    Tensor parts = torch::stable::new_empty(weight, {p.workspace()});
    p.grad = grad.const_data_ptr<T>();
    p.parts = parts.mutable_data_ptr<A>();
    p.grad_weight = grad_weight.mutable_data_ptr<A>();
    p.grad_bias = grad_bias.mutable_data_ptr<A>();
    p.grad_slope = grad_slope.mutable_data_ptr<A>();
    launch_depthwise_prelu<true>(p, scope.stream);
  });
  return {grad_x, grad_weight, grad_bias, grad_slope};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(task_aware, CUDA, m) {
  m.impl("depthwise_prelu", TORCH_BOX(&depthwise_prelu_cuda));
  m.impl("depthwise_prelu_backward", TORCH_BOX(&depthwise_prelu_backward_cuda));
}

}  // namespace task_aware
