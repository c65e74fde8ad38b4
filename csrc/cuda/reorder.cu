// reorder on tensors; reorder.cuh holds the kernels.

#include <torch/csrc/stable/library.h>

#include "common/arguments.h"
#include "common/dispatch.h"
#include "cuda/reorder.cuh"
#include "cuda/scope.h"

namespace task_aware {
namespace {

template <bool kBackward>
Tensor reorder_of(const Tensor& source_in, const Tensor& permutation_in) {
  check_reorder_arguments(source_in, permutation_in);
  const CudaScope scope(source_in);
  const Tensor source = torch::stable::contiguous(source_in);
  const Tensor permutation = torch::stable::contiguous(permutation_in);
  Tensor result = torch::stable::new_empty(source, source.sizes());
  if (result.numel() == 0) return result;

  const ReorderParams params{source.const_data_ptr(),
                             permutation.const_data_ptr<int64_t>(),
                             result.mutable_data_ptr(),
                             source.size(0) * source.size(1),
                             source.size(1),
                             elements_from(source, 2)};
  dispatch_floating(source.scalar_type(), "reorder",
                    [&]<typename T>(TypeTag<T>) { launch_reorder<T, kBackward>(params, scope.stream); });
  return result;
}

Tensor reorder_cuda(const Tensor& estimates, const Tensor& permutation) {
  return reorder_of<false>(estimates, permutation);
}

Tensor reorder_backward_cuda(const Tensor& grad, const Tensor& permutation) {
  return reorder_of<true>(grad, permutation);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(task_aware, CUDA, m) {
  m.impl("reorder", TORCH_BOX(&reorder_cuda));
  m.impl("reorder_backward", TORCH_BOX(&reorder_backward_cuda));
}

}  // namespace task_aware
