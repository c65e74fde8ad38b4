// conv_glu_pool on tensors; conv_glu_pool.cuh holds the kernels.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "common/arguments.h"
#include "common/dispatch.h"
#include "cuda/conv_glu_pool.cuh"
#include "cuda/scope.h"

namespace task_aware {
namespace {

template <bool kBackward>
void run(const Tensor* grad, const Tensor& features, const Tensor& kernel_in, const Tensor& shift_in,
         const Tensor& weight_in, const Tensor& bias_in, int64_t mel, int64_t time, Tensor& out,
         cudaStream_t stream) {
  const Tensor kernel = torch::stable::contiguous(kernel_in), shift = torch::stable::contiguous(shift_in),
               weight = torch::stable::contiguous(weight_in), bias = torch::stable::contiguous(bias_in);
  dispatch_floating(features.scalar_type(), "conv_glu_pool", [&]<typename T>(TypeTag<T>) {
    using A = accumulate_t<T>;
    ConvGluParams<T> p{};
    p.features = features.const_data_ptr<T>();
    p.kernel = kernel.const_data_ptr<A>();
    p.shift = shift.const_data_ptr<A>();
    p.weight = weight.const_data_ptr<A>();
    p.bias = bias.const_data_ptr<A>();
    p.out = out.mutable_data_ptr<T>();
    p.B = features.size(0);
    p.C = static_cast<int>(weight.size(0));
    p.F = static_cast<int>(features.size(1));
    p.frames = static_cast<int>(features.size(2));
    p.p = static_cast<int>(mel);
    p.n = static_cast<int>(time);
    if constexpr (kBackward) {
      Tensor sums = torch::stable::new_empty(weight, {p.workspace()});
      p.grad = grad->const_data_ptr<T>();
      p.sums = sums.mutable_data_ptr<A>();
      launch_conv_glu_pool<true>(p, stream);
    } else {
      launch_conv_glu_pool<false>(p, stream);
    }
  });
}

Tensor conv_glu_pool_cuda(const Tensor& features_in, const Tensor& kernel, const Tensor& shift,
                          const Tensor& weight, const Tensor& bias, int64_t mel, int64_t time) {
  check_conv_glu_pool_arguments(features_in, kernel, shift, weight, bias, mel, time);
  const CudaScope scope(features_in);
  const Tensor features = torch::stable::contiguous(features_in);
  Tensor out = torch::stable::new_empty(
      features, {features.size(0), weight.size(0), features.size(1) / mel, features.size(2) / time});
  if (out.numel() > 0)
    run<false>(nullptr, features, kernel, shift, weight, bias, mel, time, out, scope.stream);
  return out;
}

Tensor conv_glu_pool_backward_cuda(const Tensor& grad_in, const Tensor& features_in, const Tensor& kernel,
                                   const Tensor& shift, const Tensor& weight, const Tensor& bias, int64_t mel,
                                   int64_t time) {
  check_conv_glu_pool_arguments(features_in, kernel, shift, weight, bias, mel, time);
  const CudaScope scope(features_in);
  const Tensor features = torch::stable::contiguous(features_in), grad = torch::stable::contiguous(grad_in);
  if (grad.numel() == 0) return torch::stable::new_zeros(features, features.sizes());
  Tensor grad_features = torch::stable::new_empty(features, features.sizes());
  run<true>(&grad, features, kernel, shift, weight, bias, mel, time, grad_features, scope.stream);
  return grad_features;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(task_aware, CUDA, m) {
  m.impl("conv_glu_pool", TORCH_BOX(&conv_glu_pool_cuda));
  m.impl("conv_glu_pool_backward", TORCH_BOX(&conv_glu_pool_backward_cuda));
}

}  // namespace task_aware
