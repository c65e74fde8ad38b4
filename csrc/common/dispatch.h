#pragma once

// From a tensor's dtype to a C++ type.
//
//   dispatch_floating(x.scalar_type(), "reorder", [&]<typename T>(TypeTag<T>) { kernel<T>(...); });

#include <torch/headeronly/core/ScalarType.h>

#include "common/accumulate.h"
#include "common/tensor.h"

namespace task_aware {

using torch::headeronly::BFloat16;

template <typename T>
struct TypeTag {
  using type = T;
};

/// float32, float64 or bfloat16.
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

/// float32 or float64.
template <typename Function>
void dispatch_real(ScalarType type, const char* operation, Function&& function) {
  switch (type) {
    case ScalarType::Float:
      return function(TypeTag<float>{});
    case ScalarType::Double:
      return function(TypeTag<double>{});
    default:
      fail(operation, ": got ", torch::headeronly::toString(type), " tensors, expected float32 or float64.");
  }
}

}  // namespace task_aware
