#pragma once

// The table of a RegisterFft's roots of unity, from the tensor that an operator was given.

#include <cstdint>
#include <optional>

#include "common/butterflies.h"
#include "common/check.h"
#include "common/tensor.h"

namespace task_aware {

/// `count` values of the table that task_aware/ops/_tables.py makes, for kernels on `beside`'s device and of its dtype.
template <typename T>
const Complex<T>* fft_roots(const std::optional<Tensor>& table, const Tensor& beside, int64_t count,
                            const char* operation) {
  TASK_AWARE_CHECK(
      table && table->numel() == 2 * count && table->is_contiguous() &&
          table->scalar_type() == beside.scalar_type() && same_device(*table, beside),
      operation, ": roots must be a contiguous [", count,
      ",2] table of roots of unity with the dtype and device of the other tensors; call this operator "
      "through task_aware.ops.");
  return reinterpret_cast<const Complex<T>*>(table->const_data_ptr<T>());
}

}  // namespace task_aware
