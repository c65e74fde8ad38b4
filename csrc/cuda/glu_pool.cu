// glu_pool on tensors; glu_pool_mma.cuh and glu_pool.cuh hold the kernels.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "common/arguments.h"
#include "common/dispatch.h"
#include "cuda/glu_pool_mma.cuh"
#include "cuda/scope.h"

namespace task_aware {
namespace {

template <bool kBackward>
void run(const Tensor* grad, const Tensor& x, const Tensor& weight_in, const Tensor& bias_in, int64_t mel,
         int64_t time, Tensor& out, cudaStream_t stream) {
  const Tensor weight = torch::stable::contiguous(weight_in), bias = torch::stable::contiguous(bias_in);
  dispatch_floating(x.scalar_type(), "glu_pool", [&]<typename T>(TypeTag<T>) {
    using A = accumulate_t<T>;
    GluParams<T> p{};
    p.x = x.const_data_ptr<T>();
    p.weight = weight.const_data_ptr<A>();
    p.bias = bias.const_data_ptr<A>();
    p.grad = grad ? grad->const_data_ptr<T>() : nullptr;
    p.out = out.mutable_data_ptr<T>();
    p.B = x.size(0);
    p.C = static_cast<int>(x.size(1));
    p.F = static_cast<int>(x.size(2));
    p.frames = static_cast<int>(x.size(3));
    p.p = static_cast<int>(mel);
    p.n = static_cast<int>(time);
    if constexpr (TensorCore<T>::kHas) {
      if (const int64_t bytes = fragment_bytes<kBackward>(p); bytes > 0) {
        Tensor fragments = torch::stable::new_empty(weight, {bytes / int64_t{sizeof(float)}});
        p.fragments = reinterpret_cast<uint4*>(fragments.mutable_data_ptr<float>());
        return launch_glu_pool_mma<kBackward>(p, stream);
      }
    }
    const Tensor transposed = torch::stable::contiguous(torch::stable::transpose(weight, 0, 1));
    p.transposed = transposed.const_data_ptr<A>();
    launch_glu_pool<kBackward>(p, stream);
  });
}

Tensor glu_pool_cuda(const Tensor& x_in, const Tensor& weight, const Tensor& bias, int64_t mel,
                     int64_t time) {
  check_glu_pool_arguments(x_in, weight, bias, mel, time);
  const CudaScope scope(x_in);
  const Tensor x = torch::stable::contiguous(x_in);
  Tensor out = torch::stable::new_empty(x, {x.size(0), x.size(1), x.size(2) / mel, x.size(3) / time});
  if (out.numel() > 0) run<false>(nullptr, x, weight, bias, mel, time, out, scope.stream);
  return out;
}

Tensor glu_pool_backward_cuda(const Tensor& grad_in, const Tensor& x_in, const Tensor& weight,
                              const Tensor& bias, int64_t mel, int64_t time) {
  check_glu_pool_arguments(x_in, weight, bias, mel, time);
  const CudaScope scope(x_in);
  const Tensor x = torch::stable::contiguous(x_in), grad = torch::stable::contiguous(grad_in);
  const bool all_pooled = x.size(2) % mel == 0 && x.size(3) % time == 0;
  Tensor grad_x =
      all_pooled ? torch::stable::new_empty(x, x.sizes()) : torch::stable::new_zeros(x, x.sizes());
  if (grad.numel() > 0) run<true>(&grad, x, weight, bias, mel, time, grad_x, scope.stream);
  return grad_x;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(task_aware, CUDA, m) {
  m.impl("glu_pool", TORCH_BOX(&glu_pool_cuda));
  m.impl("glu_pool_backward", TORCH_BOX(&glu_pool_backward_cuda));
}

}  // namespace task_aware
