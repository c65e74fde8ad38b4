#pragma once

// From a tensor's dtype to a C++ type: float, double and BFloat16; BFloat16 accumulates in float.
//
//   dispatch_floating(x.scalar_type(), "reorder", [&]<typename T>(TypeTag<T>) { kernel<T>(...); });

#include <torch/headeronly/core/ScalarType.h>

#include "common/check.h"

namespace task_aware {

using torch::headeronly::BFloat16;

template <typename T>
struct TypeTag {
  using type = T;
};

template <typename T>
struct AccumulateType {
  using type = T;
};
template <>
struct AccumulateType<BFloat16> {
  using type = float;
};
template <typename T>
using accumulate_t = typename AccumulateType<T>::type;

template <typename Function>
void dispatch_floating(ScalarType type, const char* operation, Function&& function) {
  switch (type) {
    case ScalarType::Float:
      return function(TypeTag<float>{});
    case ScalarType::Double:
      return function(TypeTag<double>{});
    case ScalarType::BFloat16:
      return function(TypeTag<BFloat16>{});
    default:
      fail(operation, ": got ", torch::headeronly::toString(type),
           " tensors, expected float32, float64 or bfloat16.");
  }
}

}  // namespace task_aware
