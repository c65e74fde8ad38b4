#pragma once

// Products of float32 and bfloat16 on tensor cores, a square matrix times columns that lie in shared memory in words.
//
// bfloat16 is multiplied as it is, two numbers a word. A float32 is split into two TF32 numbers of 11 bits,
// a = high + low within 2^-23 |a|, and a b taken as low(a) high(b) + high(a) low(b) + high(a) high(b), within 2^-21 |a b|.
// Tensor cores cut off their sums, so float32 adds only eight products there, and those sums to each other by itself.
// An infinite number gives NaN.

#include <torch/headeronly/util/BFloat16.h>

#include <bit>
#include <cstdint>

#include "cuda/mma.cuh"

namespace task_aware {
namespace {

constexpr int kLanes = 32, kWordsOfStep = 8, kRowsOfTile = 16;

/// kPerWord numbers are a word; a loop over steps has registers for kStepsAtOnce. Other types have no tensor cores.
template <typename T>
struct TensorCore {
  static constexpr bool kHas = false;
};

template <>
struct TensorCore<float> {
  static constexpr bool kHas = true;
  static constexpr int kPerWord = 1, kStepsAtOnce = 1;

  static __device__ float value(uint32_t word, int) { return __uint_as_float(word); }
  static __device__ uint32_t word(const float (&values)[1]) { return __float_as_uint(values[0]); }
  template <typename Words>
  struct Split {
    Words high, low;
  };
  static __device__ Split<uint32_t> split(uint32_t word) {
    constexpr uint32_t kKept = 0xffffe000, kHalf = 0x1000;
    const uint32_t high = (word + kHalf) & kKept;
    return {high, __float_as_uint(__uint_as_float(word) - __uint_as_float(high)) & kKept};
  }
  static __device__ Split<uint2> split(const uint2& b) {
    const Split<uint32_t> x = split(b.x), y = split(b.y);
    return {uint2{x.high, y.high}, uint2{x.low, y.low}};
  }
  static __device__ Split<uint4> split(const uint4& a) {
    const Split<uint32_t> x = split(a.x), y = split(a.y), z = split(a.z), w = split(a.w);
    return {uint4{x.high, y.high, z.high, w.high}, uint4{x.low, y.low, z.low, w.low}};
  }

  static __device__ void multiply_add(float (&sum)[4], const Split<uint4>& a, const Split<uint2>& b) {
    float part[4] = {};
    multiply_add_tf32(part, a.low, b.high);
    multiply_add_tf32(part, a.high, b.low);
    multiply_add_tf32(part, a.high, b.high);
#pragma unroll
    for (int i = 0; i < 4; ++i) sum[i] += part[i];
  }
};

template <>
struct TensorCore<torch::headeronly::BFloat16> {
  static constexpr bool kHas = true;
  static constexpr int kPerWord = 2, kStepsAtOnce = 2;

  static __device__ float value(uint32_t word, int k) {
    return __uint_as_float(k == 0 ? word << 16 : word & 0xffff0000u);
  }
  static __device__ uint32_t word(const float (&values)[2]) {
    const auto bits = [](float x) {
      return uint32_t{std::bit_cast<uint16_t>(torch::headeronly::BFloat16(x))};
    };
    return bits(values[0]) | bits(values[1]) << 16;
  }
  template <typename Words>
  static __device__ Words split(const Words& words) {
    return words;
  }
  static __device__ void multiply_add(float (&sum)[4], const uint4& a, const uint2& b) {
    multiply_add_bfloat16(sum, a, b);
  }
};

/// The matrix in tiles of its rows and steps along its columns, both padded with zeros, as warps read it: of each tile
/// and step a fragment, a lane's four words side by side.
struct MatrixTiles {
  int rows, steps;

  __host__ __device__ int words() const { return steps * kWordsOfStep; }
  __host__ __device__ int fragments() const { return rows * steps * kLanes; }
};

/// out[0]: the fragments of matrix [C,C], out[1], where the grid has two rows: those of its transpose.
template <typename T>
__global__ void fragments_kernel(const float* matrix, int C, MatrixTiles tiles, uint4* out) {
  using Core = TensorCore<T>;
  const int tile = blockIdx.x, lane = threadIdx.x;
  const bool transposed = blockIdx.y == 1;
  const int first_row = tile / tiles.steps * kRowsOfTile + lane / 4;
  const int first_word = tile % tiles.steps * kWordsOfStep + lane % 4;
  uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int row = first_row + i % 2 * 8, column = (first_word + i / 2 * 4) * Core::kPerWord;
    float values[Core::kPerWord];
#pragma unroll
    for (int k = 0; k < Core::kPerWord; ++k) {
      const int index = transposed ? (column + k) * C + row : row * C + column + k;
      values[k] = row < C && column + k < C ? matrix[index] : 0.0f;
    }
    words[i] = Core::word(values);
  }
  if (transposed) out += tiles.fragments();
  out[tile * kLanes + lane] = uint4{words[0], words[1], words[2], words[3]};
}

}  // namespace
}  // namespace task_aware
