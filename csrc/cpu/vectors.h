#pragma once

// Vectors of kWidth values as GCC and Clang have them: operators and comparisons are elementwise, and
// `a < b ? x : y` chooses elementwise. All is inlined into callers that are compiled for one instruction set.

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "common/accumulate.h"
#include "common/dispatch.h"
#include "common/parallel.h"
#include "common/scalar.h"

namespace task_aware {

template <typename Real, int kWidth>
struct VectorOf {
  typedef Real type __attribute__((vector_size(kWidth * sizeof(Real))));
};
template <typename Real, int kWidth>
using vector_t = typename VectorOf<Real, kWidth>::type;

template <typename V>
inline constexpr int kLanesOf = sizeof(V) / sizeof(scalar_t<V>);

/// Signed integers of the size of V's elements, which comparisons of V give: -1 for true, 0 for false.
template <typename V>
using integers_t = vector_t<std::conditional_t<sizeof(scalar_t<V>) == 4, int32_t, int64_t>, kLanesOf<V>>;

/// The same bits as another type.
template <typename To, typename From>
TASK_AWARE_INLINE To as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

/// The first `count` values of `source` in the type of sums; zeros follow.
template <typename T, int kWidth>
TASK_AWARE_INLINE auto load(const T* source, int64_t count = kWidth) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    vector_t<uint16_t, kWidth> bits{};
    std::memcpy(&bits, source, count * sizeof(T));
    return as<vector_t<float, kWidth>>(__builtin_convertvector(bits, vector_t<uint32_t, kWidth>) << 16);
  } else {
    vector_t<T, kWidth> values{};
    std::memcpy(&values, source, count * sizeof(T));
    return values;
  }
}

/// The first `count` of `values` to `target`, rounded to its type.
template <typename T, typename V>
TASK_AWARE_INLINE void store(T* target, V values, int64_t count = kLanesOf<V>) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    const auto bits = as<vector_t<uint32_t, kLanesOf<V>>>(values);
    const auto rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;  // to the nearest, ties to even
    const auto kept = values == values ? rounded : rounded * 0 + 0x7fc0;
    const auto narrow = __builtin_convertvector(kept, vector_t<uint16_t, kLanesOf<V>>);
    std::memcpy(target, &narrow, count * sizeof(T));
  } else {
    std::memcpy(target, &values, count * sizeof(T));
  }
}

template <typename V>
TASK_AWARE_INLINE V absolute(V value) {
  using Bits = integers_t<V>;
  return as<V>(as<Bits>(value) & ~(Bits{} + (scalar_t<Bits>{1} << (8 * sizeof(scalar_t<V>) - 1))));
}

/// Elementwise min(a, b); where one is NaN, it is a.
template <typename V>
TASK_AWARE_INLINE V smaller(V a, V b) {
  return b < a ? b : a;
}

/// Elementwise max(a, b); where one is NaN, it is a.
template <typename V>
TASK_AWARE_INLINE V larger(V a, V b) {
  return b > a ? b : a;
}

template <typename V>
TASK_AWARE_INLINE bool any(V condition) {
  scalar_t<V> result = 0;
  for (int k = 0; k < kLanesOf<V>; ++k) result |= condition[k];
  return result != 0;
}

/// Elements of `a` followed by `b`, chosen by their indices.
template <typename V, int... kIndex>
TASK_AWARE_INLINE V shuffle(V a, V b, std::integer_sequence<int, kIndex...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, kIndex...);
#else
  return __builtin_shuffle(a, b, integers_t<V>{kIndex...});
#endif
}

template <typename V, int... kLane>
TASK_AWARE_INLINE V evens(V a, V b, std::integer_sequence<int, kLane...>) {
  return shuffle(a, b, std::integer_sequence<int, (2 * kLane)...>{});
}
template <typename V, int... kLane>
TASK_AWARE_INLINE V odds(V a, V b, std::integer_sequence<int, kLane...>) {
  return shuffle(a, b, std::integer_sequence<int, (2 * kLane + 1)...>{});
}
template <typename V, int... kLane>
TASK_AWARE_INLINE V reversed(V a, std::integer_sequence<int, kLane...>) {
  return shuffle(a, a, std::integer_sequence<int, (kLanesOf<V> - 1 - kLane)...>{});
}

/// The lanes' numbers, for evens, odds and reversed.
template <typename V>
inline constexpr auto kLaneNumbers = std::make_integer_sequence<int, kLanesOf<V>>{};

/// The sum of a vector's elements, in pairs.
template <typename V>
TASK_AWARE_INLINE scalar_t<V> total(V values) {
  if constexpr (kLanesOf<V> == 1) {
    return values[0];
  } else {
    using Half = vector_t<scalar_t<V>, kLanesOf<V> / 2>;
    Half low, high;
    std::memcpy(&low, &values, sizeof(Half));
    std::memcpy(&high, reinterpret_cast<const char*>(&values) + sizeof(Half), sizeof(Half));
    return total<Half>(low + high);
  }
}

/// visit(n, count) for each vector of a row of `length`: `count` is kWidth but for the last, incomplete one.
template <int kWidth, typename Visit>
TASK_AWARE_INLINE void for_vectors(int64_t length, Visit visit) {
  int64_t n = 0;
  for (; n + kWidth <= length; n += kWidth) visit(n, kWidth);
  if (n < length) visit(n, static_cast<int>(length - n));
}

#if TASK_AWARE_X86_LEVELS
template <typename Kernel, typename Params>
__attribute__((target("arch=x86-64-v4,prefer-vector-width=512"))) void run_v4(const Params& params) {
  Kernel::template run<64>(params);
}
template <typename Kernel, typename Params>
__attribute__((target("arch=x86-64-v3"))) void run_v3(const Params& params) {
  Kernel::template run<32>(params);
}
#endif

/// Kernel::run<bytes of a vector>(params), compiled for this processor; `run` must be TASK_AWARE_INLINE.
template <typename Kernel, typename Params>
void run_vectorised(const Params& params) {
#if TASK_AWARE_X86_LEVELS
  static const bool v4 = __builtin_cpu_supports("x86-64-v4"), v3 = __builtin_cpu_supports("x86-64-v3");
  if (v4) return run_v4<Kernel>(params);
  if (v3) return run_v3<Kernel>(params);
#endif
  Kernel::template run<16>(params);
}

}  // namespace task_aware
