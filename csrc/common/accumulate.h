#pragma once

// The type that sums are kept in: float64 for float64, float32 for everything narrower.

#include <type_traits>

namespace task_aware {

template <typename T>
using accumulate_t = std::conditional_t<sizeof(T) == sizeof(double), double, float>;

}  // namespace task_aware
