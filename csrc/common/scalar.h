#pragma once

// The type of a vector's elements; a number is its own.

#include <type_traits>
#include <utility>

namespace task_aware {

template <typename T>
struct ScalarOf {
  using type = T;
};
template <typename T>
  requires requires(T x) { x[0]; }
struct ScalarOf<T> {
  using type = std::remove_cv_t<std::remove_reference_t<decltype(std::declval<T&>()[0])>>;
};
template <typename T>
using scalar_t = typename ScalarOf<T>::type;

}  // namespace task_aware
