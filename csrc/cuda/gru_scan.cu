// gru_scan on tensors; gru_scan.cuh and gru_scan_backward.cuh hold the kernels.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "common/arguments.h"
#include "common/dispatch.h"
#include "cuda/gru_scan_backward.cuh"
#include "cuda/scope.h"

namespace task_aware {
namespace {

template <bool kBackward>
void run(const Tensor* grad, const Tensor* h, const Tensor& gates, const Tensor& weight_in,
         const Tensor& bias_in, Tensor& out, const CudaScope& scope) {
  const Tensor weight = torch::stable::contiguous(weight_in), bias = torch::stable::contiguous(bias_in);
  dispatch_floating(gates.scalar_type(), "gru_scan", [&]<typename T>(TypeTag<T>) {
    using A = accumulate_t<T>;
    GruParams<T> p{};
    p.B = gates.size(0);
    p.frames = static_cast<int>(gates.size(1));
    p.D = static_cast<int>(gates.size(2));
    p.H = static_cast<int>(weight.size(2));
    p.width = gru_width(p.H);
    const int64_t limit = scope.shared_bytes_of_a_block();
    const int64_t bytes = kBackward ? gru_backward_shared_bytes<A>(p.width) : gru_shared_bytes<A>(p.width);
    TASK_AWARE_CHECK(bytes <= limit, "gru_scan: ", p.H, " units need ", bytes,
                     " bytes of shared memory, this GPU has ", limit, "; use torch.nn.GRU.");
    const int64_t numbers = int64_t{3} * p.D * p.width * p.width;
    Tensor packed = torch::stable::new_empty(weight, {(kBackward ? 2 : 1) * numbers}), factors;
    p.gates = gates.const_data_ptr<T>();
    p.bias = bias.const_data_ptr<A>();
    p.rows = packed.mutable_data_ptr<A>();
    p.out = out.mutable_data_ptr<T>();
    if constexpr (kBackward) {
      // one number, since nvcc 13.0 spoils several in braces (findings/braces_in_calls_under_nvcc.sh)
      factors = torch::stable::new_empty(weight, {p.B * p.frames * p.D * kFactors * p.H});
      p.columns = packed.mutable_data_ptr<A>() + numbers;
      p.h = h->const_data_ptr<T>();
      p.grad = grad->const_data_ptr<T>();
      p.factors = factors.mutable_data_ptr<A>();
      launch_gru_scan_backward(p, weight.const_data_ptr<A>(), scope.stream);
    } else {
      launch_gru_scan(p, weight.const_data_ptr<A>(), scope.stream);
    }
  });
}

Tensor gru_scan_cuda(const Tensor& gates_in, const Tensor& weight, const Tensor& bias) {
  check_gru_scan_arguments(gates_in, weight, bias);
  const CudaScope scope(gates_in);
  const Tensor gates = torch::stable::contiguous(gates_in);
  Tensor out = torch::stable::new_empty(gates, {gates.size(0), gates.size(1), gates.size(2), weight.size(2)});
  if (out.numel() > 0) run<false>(nullptr, nullptr, gates, weight, bias, out, scope);
  return out;
}

Tensor gru_scan_backward_cuda(const Tensor& grad_in, const Tensor& h_in, const Tensor& gates_in,
                              const Tensor& weight, const Tensor& bias) {
  check_gru_scan_arguments(gates_in, weight, bias);
  const CudaScope scope(gates_in);
  const Tensor gates = torch::stable::contiguous(gates_in), h = torch::stable::contiguous(h_in),
               grad = torch::stable::contiguous(grad_in);
  Tensor grad_gates = torch::stable::new_empty(gates, gates.sizes());
  if (grad_gates.numel() > 0) run<true>(&grad, &h, gates, weight, bias, grad_gates, scope);
  return grad_gates;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(task_aware, CUDA, m) {
  m.impl("gru_scan", TORCH_BOX(&gru_scan_cuda));
  m.impl("gru_scan_backward", TORCH_BOX(&gru_scan_backward_cuda));
}

}  // namespace task_aware
