#pragma once

// Checks behind Python's own validation. A message is one sentence: the operator, what was given, what is
// wanted.

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <sstream>
#include <stdexcept>

namespace task_aware {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <typename... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

#define TASK_AWARE_CHECK(condition, ...) \
  do {                                   \
    if (!(condition)) {                  \
      ::task_aware::fail(__VA_ARGS__);   \
    }                                    \
  } while (0)

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

}  // namespace task_aware
