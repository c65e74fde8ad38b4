#pragma once

// The products of glu_pool's tiles (glu_pool_tile.h): some rows in the L1 cache times a small matrix, which lies in
// panels of as many columns as are multiplied at once. Products of bfloat16 are of pairs of channels, which a processor
// with AVX512_BF16 multiplies and adds in one instruction, twice as fast as float32.

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "common/dispatch.h"
#include "cpu/vectors.h"

namespace task_aware {

constexpr int64_t kPanel = 16;  // columns that lie together for each row of a matrix

TASK_AWARE_INLINE int64_t whole_panels(int64_t columns) { return (columns + kPanel - 1) / kPanel * kPanel; }

/// Rows of a matrix whose factors a product reads together.
template <typename T>
inline constexpr int64_t kTogether = std::is_same_v<T, BFloat16> ? 2 : 1;

template <typename T>
TASK_AWARE_INLINE int64_t steps_of(int64_t rows) {
  return (rows + kTogether<T> - 1) / kTogether<T>;
}

/// The matrix matrix[row * row_stride + column * column_stride] as products read it:
/// [columns / kPanel, rows / kTogether, kPanel, kTogether], zeros beyond its last column and row.
template <typename T, typename A>
std::vector<T> panels(const A* matrix, int64_t rows, int64_t columns, int64_t row_stride,
                      int64_t column_stride) {
  constexpr int64_t kRows = kTogether<T>;
  std::vector<T> result(steps_of<T>(rows) * kRows * whole_panels(columns), T(0));
  for (int64_t column = 0; column < columns; ++column) {
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t step = column / kPanel * steps_of<T>(rows) + row / kRows;
      result[(step * kPanel + column % kPanel) * kRows + row % kRows] =
          static_cast<T>(matrix[row * row_stride + column * column_stride]);
    }
  }
  return result;
}

/// Positions whose products a processor keeps in registers, two vectors of each; a multiple of three.
template <typename V>
inline constexpr int kRowsAtOnce = sizeof(V) == 64 ? 12 : 6;

/// Whether the processor multiplies and adds pairs of bfloat16.
inline bool has_bfloat16_pairs() {
#if TASK_AWARE_X86_LEVELS
  static const bool has = __builtin_cpu_supports("avx512bf16");
  return has;
#else
  return false;
#endif
}

/// What a product reads of a matrix at once: V, or for each of its columns a pair of bfloat16.
template <typename V, typename T>
using factors_t = vector_t<std::conditional_t<std::is_same_v<T, BFloat16>, uint32_t, T>, kLanesOf<V>>;

/// sum + the sum over the factors that lie together of x factors.
template <bool kPairs, typename V, typename T>
TASK_AWARE_INLINE V add_product(V sum, const T* x, factors_t<V, T> factors) {
  if constexpr (!std::is_same_v<T, BFloat16>) {
    return sum + *x * factors;
#if TASK_AWARE_X86_LEVELS
  } else if constexpr (kPairs) {
    uint32_t pair;
    std::memcpy(&pair, x, sizeof(pair));
    // Not an intrinsic, which would have the kernel compiled once more; denormal factors count as 0.
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(factors), "v"(factors_t<V, T>{} + pair));
    return sum;
#endif
  } else {
    const V even = as<V>(factors << 16), odd = as<V>(factors & 0xffff0000u);
    return sum + static_cast<float>(x[0]) * even + static_cast<float>(x[1]) * odd;
  }
}

/// The columns of as many vectors as have any of the first `columns`, in whose panels there are zeros beyond.
template <typename V>
TASK_AWARE_INLINE int64_t whole_vectors(int64_t columns) {
  return (columns + kLanesOf<V> - 1) / kLanesOf<V> * kLanesOf<V>;
}

/// finish(row, column, product) for the rows `row` .. and the vectors at `column` .. of `in` [,stride] times a matrix.
template <typename V, int kVectors, bool kPairs, typename T, typename Finish>
TASK_AWARE_INLINE void multiply_block(const T* matrix, int64_t depth, const T* in, int64_t stride,
                                      int64_t row, int64_t column, Finish finish) {
  constexpr int kLanes = kLanesOf<V>, kRows = kRowsAtOnce<V>;
  const int64_t steps = steps_of<T>(depth);
  const T* weights[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    const int64_t first = column + v * kLanes;
    weights[v] = matrix + (first / kPanel * steps * kPanel + first % kPanel) * kTogether<T>;
  }
  const T* rows[kRows / 3];
  for (int r = 0; r < kRows / 3; ++r) rows[r] = in + (row + 3 * r) * stride;
  V sum[kRows][kVectors] = {};
  for (int64_t k = 0; k < steps; ++k) {
    factors_t<V, T> factors[kVectors];
    for (int v = 0; v < kVectors; ++v)
      std::memcpy(&factors[v], weights[v] + k * kPanel * kTogether<T>, sizeof(V));
    for (int r = 0; r < kRows; ++r) {
      const T* const x = rows[r / 3] + r % 3 * stride + k * kTogether<T>;
      for (int v = 0; v < kVectors; ++v) sum[r][v] = add_product<kPairs, V, T>(sum[r][v], x, factors[v]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) finish(row + r, column + v * kLanes, sum[r][v]);
  }
}

template <typename V, bool kPairs, typename T, typename Finish>
TASK_AWARE_INLINE void multiply_blocks(const T* matrix, int64_t depth, int64_t columns, const T* in,
                                       int64_t stride, int64_t count, Finish finish) {
  constexpr int64_t kLanes = kLanesOf<V>;
  const int64_t pairs = columns / (2 * kLanes) * 2 * kLanes;
  for (int64_t column = 0; column < columns; column += column < pairs ? 2 * kLanes : kLanes) {
    for (int64_t row = 0; row < count; row += kRowsAtOnce<V>) {
      if (column < pairs) {
        multiply_block<V, 2, kPairs>(matrix, depth, in, stride, row, column, finish);
      } else {
        multiply_block<V, 1, kPairs>(matrix, depth, in, stride, row, column, finish);
      }
    }
  }
}

/// finish(row, column, product) for each row below `count` (and some beyond) and each vector of columns of
/// `in` [count,stride] times a matrix of `depth` rows.
template <typename V, typename T, typename Finish>
TASK_AWARE_INLINE void multiply(const T* matrix, int64_t depth, int64_t columns, const T* in, int64_t stride,
                                int64_t count, Finish finish) {
  if constexpr (std::is_same_v<T, BFloat16> && sizeof(V) == 64) {
    if (has_bfloat16_pairs())
      return multiply_blocks<V, true>(matrix, depth, columns, in, stride, count, finish);
  }
  multiply_blocks<V, false>(matrix, depth, columns, in, stride, count, finish);
}

}  // namespace task_aware
