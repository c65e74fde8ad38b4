// pit_loss on tensors; pit_loss.cuh and pit_loss_backward.cuh hold the kernels.

#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>

#include "common/arguments.h"
#include "common/dispatch.h"
#include "cuda/pit_loss.cuh"
#include "cuda/pit_loss_backward.cuh"
#include "cuda/scope.h"

namespace task_aware {
namespace {

std::tuple<Tensor, Tensor, Tensor> pit_loss_cuda(const Tensor& estimates_in, const Tensor& targets_in,
                                                 const std::optional<Tensor>& mask_in,
                                                 const std::optional<Tensor>& allowed_in, int64_t kind) {
  check_pit_loss_arguments(estimates_in, targets_in, mask_in, allowed_in, kind);
  const CudaScope scope(estimates_in);
  const Tensor estimates = torch::stable::contiguous(estimates_in);
  const Tensor targets = torch::stable::contiguous(targets_in);
  const std::optional<Tensor> mask = contiguous_if_given(mask_in), allowed = contiguous_if_given(allowed_in);
  const int64_t B = estimates.size(0), N = elements_from(estimates, 2);
  const int S = static_cast<int>(estimates.size(1));
  Tensor loss = torch::stable::new_empty(estimates, {B}, pit_loss_type(estimates));
  Tensor permutation = torch::stable::new_empty(estimates, {B, S}, ScalarType::Long);
  Tensor slopes = new_pit_loss_slopes(estimates, kind);
  if (B == 0) return {loss, permutation, slopes};

  ForwardParams params{estimates.const_data_ptr(),
                       targets.const_data_ptr(),
                       mask ? mask->const_data_ptr<bool>() : nullptr,
                       loss.mutable_data_ptr(),
                       permutation.mutable_data_ptr<int64_t>(),
                       B,
                       N,
                       S,
                       static_cast<PitKind>(kind),
                       allowed ? allowed->const_data_ptr<bool>() : nullptr,
                       slopes_to_write(slopes)};
  const Tensor workspace = torch::stable::new_empty(estimates, {params.workspace()}, ScalarType::Double);
  params.partial = workspace.mutable_data_ptr<double>();
  dispatch_floating(estimates.scalar_type(), "pit_loss", [&]<typename T>(TypeTag<T>) {
    dispatch_kind(kind, [&]<PitKind kKind>() { launch_pit_loss<kKind, T>(params, scope.stream); });
  });
  return {loss, permutation, slopes};
}

std::tuple<Tensor, Tensor> pit_loss_backward_cuda(const Tensor& grad_in, const Tensor& loss_in,
                                                  const Tensor& estimates_in, const Tensor& targets_in,
                                                  const Tensor& permutation_in, const Tensor& slopes_in,
                                                  const std::optional<Tensor>& mask_in, int64_t kind,
                                                  bool wants_estimates, bool wants_targets) {
  check_pit_loss_arguments(estimates_in, targets_in, mask_in, std::nullopt, kind);
  const CudaScope scope(estimates_in);
  const Tensor grad = torch::stable::contiguous(grad_in), loss = torch::stable::contiguous(loss_in);
  const Tensor estimates = torch::stable::contiguous(estimates_in);
  const Tensor targets = torch::stable::contiguous(targets_in);
  const Tensor permutation = torch::stable::contiguous(permutation_in);
  const Tensor slopes = torch::stable::contiguous(slopes_in);
  const std::optional<Tensor> mask = contiguous_if_given(mask_in);
  Tensor grad_estimates = wants_estimates ? torch::stable::new_empty(estimates, estimates.sizes())
                                          : torch::stable::new_empty(estimates, {0});
  Tensor grad_targets = wants_targets ? torch::stable::new_empty(targets, targets.sizes())
                                      : torch::stable::new_empty(targets, {0});
  if (estimates.numel() == 0) return {grad_estimates, grad_targets};

  const BackwardParams params{grad.const_data_ptr(),
                              loss.const_data_ptr(),
                              estimates.const_data_ptr(),
                              targets.const_data_ptr(),
                              permutation.const_data_ptr<int64_t>(),
                              mask ? mask->const_data_ptr<bool>() : nullptr,
                              wants_estimates ? grad_estimates.mutable_data_ptr() : nullptr,
                              wants_targets ? grad_targets.mutable_data_ptr() : nullptr,
                              estimates.size(0),
                              elements_from(estimates, 2),
                              static_cast<int>(estimates.size(1)),
                              slopes_to_read(slopes)};
  dispatch_floating(estimates.scalar_type(), "pit_loss", [&]<typename T>(TypeTag<T>) {
    dispatch_kind(kind, [&]<PitKind kKind>() { launch_pit_loss_backward<kKind, T>(params, scope.stream); });
  });
  return {grad_estimates, grad_targets};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(task_aware, CUDA, m) {
  m.impl("pit_loss", TORCH_BOX(&pit_loss_cuda));
  m.impl("pit_loss_backward", TORCH_BOX(&pit_loss_backward_cuda));
}

}  // namespace task_aware
