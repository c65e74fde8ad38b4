// mel_mask on tensors; mel_mask.cuh and mel_mask_backward.cuh hold the kernels.

#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>

#include "common/arguments.h"
#include "common/dispatch.h"
#include "cuda/mel_mask.cuh"
#include "cuda/mel_mask_backward.cuh"
#include "cuda/scope.h"

namespace task_aware {
namespace {

template <typename A>
MaskParams<A> params_of(const Tensor& logits, const Tensor& mel, const Tensor& std, double floor, double amin,
                        double top_db) {
  MaskParams<A> p{};
  p.logits = logits.const_data_ptr();
  p.mel = mel.const_data_ptr();
  p.std = std.const_data_ptr<A>();
  p.B = logits.size(0);
  p.S = logits.size(1);
  p.F = logits.size(2);
  p.frames = logits.size(3);
  p.set_options(floor, amin, top_db);
  return p;
}

std::tuple<Tensor, Tensor, Tensor> mel_mask_cuda(const Tensor& logits_in, const Tensor& mel_in,
                                                 const Tensor& mean_in, const Tensor& std_in, double floor,
                                                 double amin, double top_db) {
  check_mel_mask_arguments(logits_in, mel_in, std_in);
  const CudaScope scope(logits_in);
  const Tensor logits = torch::stable::contiguous(logits_in), mel = torch::stable::contiguous(mel_in);
  const Tensor mean = torch::stable::contiguous(mean_in), std = torch::stable::contiguous(std_in);
  Tensor masked = torch::stable::new_empty(logits, logits.sizes());
  Tensor features = torch::stable::new_empty(logits, logits.sizes());
  Tensor maximum = torch::stable::new_empty(std, {logits.size(0), logits.size(1)});
  if (masked.numel() == 0) return {masked, features, maximum};

  dispatch_floating(logits.scalar_type(), "mel_mask", [&]<typename T>(TypeTag<T>) {
    using A = accumulate_t<T>;
    MaskParams<A> p = params_of<A>(logits, mel, std, floor, amin, top_db);
    const Tensor workspace = torch::stable::new_empty(std, {p.forward_workspace()});
    p.mean = mean.const_data_ptr<A>();
    p.maximum = maximum.mutable_data_ptr<A>();
    p.out_masked = masked.mutable_data_ptr();
    p.out_other = features.mutable_data_ptr();
    launch_mel_mask<T>(p, workspace.mutable_data_ptr<A>(), scope.stream);
  });
  return {masked, features, maximum};
}

std::tuple<Tensor, Tensor> mel_mask_backward_cuda(const std::optional<Tensor>& grad_masked_in,
                                                  const std::optional<Tensor>& grad_features_in,
                                                  const Tensor& logits_in, const Tensor& mel_in,
                                                  const Tensor& std_in, const Tensor& maximum_in,
                                                  double floor, double amin, double top_db, bool wants_mel) {
  check_mel_mask_arguments(logits_in, mel_in, std_in);
  const CudaScope scope(logits_in);
  const Tensor logits = torch::stable::contiguous(logits_in), mel = torch::stable::contiguous(mel_in);
  const Tensor std = torch::stable::contiguous(std_in), maximum = torch::stable::contiguous(maximum_in);
  const std::optional<Tensor> grad_masked = mel_mask_gradient(grad_masked_in, logits);
  const std::optional<Tensor> grad_features = mel_mask_gradient(grad_features_in, logits);
  Tensor grad_logits = torch::stable::new_empty(logits, logits.sizes());
  Tensor grad_mel =
      wants_mel ? torch::stable::new_zeros(mel, mel.sizes()) : torch::stable::new_empty(mel, {0});
  if (grad_logits.numel() == 0) return {grad_logits, grad_mel};

  dispatch_floating(logits.scalar_type(), "mel_mask", [&]<typename T>(TypeTag<T>) {
    using A = accumulate_t<T>;
    MaskParams<A> p = params_of<A>(logits, mel, std, floor, amin, top_db);
    const Tensor workspace = torch::stable::new_empty(std, {p.backward_workspace()});
    p.maximum = const_cast<A*>(maximum.const_data_ptr<A>());
    p.grad_masked = grad_masked ? grad_masked->const_data_ptr() : nullptr;
    p.grad_features = grad_features ? grad_features->const_data_ptr() : nullptr;
    p.out_masked = grad_logits.mutable_data_ptr();
    p.out_other = wants_mel ? grad_mel.mutable_data_ptr() : nullptr;
    launch_mel_mask_backward<T>(p, workspace.mutable_data_ptr<A>(), scope.stream);
  });
  return {grad_logits, grad_mel};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(task_aware, CUDA, m) {
  m.impl("mel_mask", TORCH_BOX(&mel_mask_cuda));
  m.impl("mel_mask_backward", TORCH_BOX(&mel_mask_backward_cuda));
}

}  // namespace task_aware
