#pragma once

// Products of tiles (glu_pool_tile.h, conv_block_rows.h): some rows in the L1 cache times a small matrix, which lies in
// panels of as many columns as are multiplied at once, or the columns of one tile times another. Products of bfloat16
// are of pairs of channels, or of rows, which a processor with AVX512_BF16 multiplies and adds in one instruction, twice
// as fast as float32.

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

/// A matrix by whose rows, or pairs of rows, a product steps: `panel` elements from kPanel columns to the next as many,
/// `step` from a row to the next. A plain row is in panels too.
template <typename T>
struct Factors {
  const T* data;
  int64_t panel, step;
};

/// finish(row, column, product) for the rows `row` .. and the vectors at `column` .. of `in` times a matrix. Rows of `in`
/// are `stride` apart; or its columns are, if transposed.
template <typename V, int kVectors, bool kPairs, bool kTransposed, typename T, typename Finish>
TASK_AWARE_INLINE void multiply_block(const Factors<T>& matrix, int64_t steps, const T* in, int64_t stride,
                                      int64_t row, int64_t column, Finish finish) {
  constexpr int kLanes = kLanesOf<V>, kRows = kRowsAtOnce<V>;
  const T* weights[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    const int64_t first = column + v * kLanes;
    weights[v] = matrix.data + first / kPanel * matrix.panel + first % kPanel * kTogether<T>;
  }
  const int64_t from_row = kTransposed ? kTogether<T> : stride,
                from_step = kTransposed ? stride : kTogether<T>;
  const T* rows[kRows / 3];
  for (int r = 0; r < kRows / 3; ++r) rows[r] = in + (row + 3 * r) * from_row;
  V sum[kRows][kVectors] = {};
  for (int64_t k = 0; k < steps; ++k) {
    factors_t<V, T> factors[kVectors];
    for (int v = 0; v < kVectors; ++v) std::memcpy(&factors[v], weights[v] + k * matrix.step, sizeof(V));
    for (int r = 0; r < kRows; ++r) {
      const T* const x = rows[r / 3] + r % 3 * from_row + k * from_step;
      for (int v = 0; v < kVectors; ++v) sum[r][v] = add_product<kPairs, V, T>(sum[r][v], x, factors[v]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) finish(row + r, column + v * kLanes, sum[r][v]);
  }
}

template <typename V, bool kPairs, bool kTransposed, typename T, typename Finish>
TASK_AWARE_INLINE void multiply_blocks(const Factors<T>& matrix, int64_t steps, int64_t columns, const T* in,
                                       int64_t stride, int64_t count, Finish finish) {
  constexpr int64_t kLanes = kLanesOf<V>;
  const int64_t pairs = columns / (2 * kLanes) * 2 * kLanes;
  for (int64_t column = 0; column < columns; column += column < pairs ? 2 * kLanes : kLanes) {
    for (int64_t row = 0; row < count; row += kRowsAtOnce<V>) {
      if (column < pairs) {
        multiply_block<V, 2, kPairs, kTransposed>(matrix, steps, in, stride, row, column, finish);
      } else {
        multiply_block<V, 1, kPairs, kTransposed>(matrix, steps, in, stride, row, column, finish);
      }
    }
  }
}

template <typename V, bool kTransposed, typename T, typename Finish>
TASK_AWARE_INLINE void multiply_factors(const Factors<T>& matrix, int64_t steps, int64_t columns, const T* in,
                                        int64_t stride, int64_t count, Finish finish) {
  if constexpr (std::is_same_v<T, BFloat16> && sizeof(V) >= 32) {
    if (has_bfloat16_pairs())
      return multiply_blocks<V, true, kTransposed>(matrix, steps, columns, in, stride, count, finish);
  }
  multiply_blocks<V, false, kTransposed>(matrix, steps, columns, in, stride, count, finish);
}

/// finish(row, column, product) for each row below `count` (and some beyond) and each vector of columns of
/// `in` [count,stride] times a matrix of `depth` rows in panels.
template <typename V, typename T, typename Finish>
TASK_AWARE_INLINE void multiply(const T* matrix, int64_t depth, int64_t columns, const T* in, int64_t stride,
                                int64_t count, Finish finish) {
  const int64_t step = kPanel * kTogether<T>;
  const Factors<T> factors{matrix, steps_of<T>(depth) * step, step};
  multiply_factors<V, false>(factors, steps_of<T>(depth), columns, in, stride, count, finish);
}

/// finish(row, column, sum over k < depth of a[k,row] b[k,column]) for each row below `count` (and some beyond) and each
/// vector of columns. The rows of `a` and `b` are `a_stride` and `b_stride` apart, and paired as by pair_rows.
template <typename V, typename T, typename Finish>
TASK_AWARE_INLINE void multiply_transposed(const T* a, int64_t a_stride, int64_t count, const T* b,
                                           int64_t b_stride, int64_t columns, int64_t depth, Finish finish) {
  const Factors<T> factors{b, kPanel * kTogether<T>, b_stride * kTogether<T>};
  multiply_factors<V, true>(factors, steps_of<T>(depth), columns, a, a_stride * kTogether<T>, count, finish);
}

/// The tile [rows,stride] as multiply_transposed reads it: itself; of bfloat16 in `paired`, [rows/2,stride,2], with a zero
/// for the row that is missing.
template <typename T>
TASK_AWARE_INLINE const T* pair_rows(const T* tile, int64_t rows, int64_t stride, T* paired) {
  if constexpr (!std::is_same_v<T, BFloat16>) {
    return tile;
  } else {
    const auto* const bits = reinterpret_cast<const uint16_t*>(tile);
    auto* const pairs = reinterpret_cast<uint32_t*>(paired);
    for (int64_t row = 0; row < rows; row += 2) {
      const bool whole = row + 1 < rows;
      for (int64_t c = 0; c < stride; ++c) {
        const uint32_t first = bits[row * stride + c], second = whole ? bits[(row + 1) * stride + c] : 0;
        pairs[row / 2 * stride + c] = first | second << 16;
      }
    }
    return paired;
  }
}

}  // namespace task_aware
