#pragma once

// What the operators ask of a tensor's shape and device.

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <optional>

#include "common/check.h"

namespace task_aware {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

/// Number of elements in the dimensions from `first` on.
inline int64_t elements_from(const Tensor& tensor, int64_t first) {
  int64_t count = 1;
  for (int64_t d = first; d < tensor.dim(); ++d) count *= tensor.size(d);
  return count;
}

inline bool same_shape(const Tensor& a, const Tensor& b) { return a.sizes().equals(b.sizes()); }

inline bool same_device(const Tensor& a, const Tensor& b) {
  return a.is_cuda() == b.is_cuda() && a.get_device_index() == b.get_device_index();
}

inline std::optional<Tensor> contiguous_if_given(const std::optional<Tensor>& tensor) {
  return tensor.has_value() ? std::optional(torch::stable::contiguous(*tensor)) : std::nullopt;
}

}  // namespace task_aware
