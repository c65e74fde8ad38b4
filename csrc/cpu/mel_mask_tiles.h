#pragma once

// The inner loops of mel_mask over a tile: neighbouring frames of one mel band of one source. Formulas:
// mel_mask.cpp.

#include <algorithm>
#include <cstdint>
#include <numbers>

#include "cpu/fast_math.h"

namespace task_aware {

constexpr double kDecibelsPerNeper = 20.0 / std::numbers::ln10;

template <typename T>
struct MaskTile {
  const T* logits;
  const T* mel;
  T floor;
  int64_t frames;
};

/// Constants of a (b,s) row in the backward.
template <typename T>
struct RowGradient {
  T amin;
  T maximum;
  T threshold;  // top_db below the maximum
  T share;      // what each element at the maximum receives on behalf of those held at the threshold
  T poison;     // NaN where the maximum is NaN, else 0
};

/// exp(-x), finite.
template <typename T>
TASK_AWARE_INLINE T odds_against(T x) {
  constexpr T kLimit = sizeof(T) == 4 ? T(87) : T(700);
  return fast_exp(x < -kLimit ? kLimit : -x);
}

template <typename T>
TASK_AWARE_INLINE T sigmoid(T x) {
  return 1 / (1 + odds_against(x));
}

template <typename T>
TASK_AWARE_INLINE void mask_values(const MaskTile<T>& tile, T* masked) {
  const T* logits = tile.logits;
  const T* mel = tile.mel;
  const T floor = tile.floor;
#pragma GCC ivdep
  for (int64_t t = 0; t < tile.frames; ++t) masked[t] = (floor + (1 - floor) * sigmoid(logits[t])) * mel[t];
}

/// The larger one; a NaN wins.
template <typename T>
TASK_AWARE_INLINE T larger(T a, T b) {
  return (b > a || b != b) ? b : a;
}

template <typename T>
TASK_AWARE_INLINE T largest_value(const T* values, int64_t count, T start) {
  constexpr int kLanes = 16;
  T lanes[kLanes];
  std::fill(lanes, lanes + kLanes, start);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) lanes[j] = larger(lanes[j], values[i + j]);
  }
  for (; i < count; ++i) lanes[0] = larger(lanes[0], values[i]);
  for (int j = 1; j < kLanes; ++j) lanes[0] = larger(lanes[0], lanes[j]);
  return lanes[0];
}

/// Scaled decibels of max(masked, least).
template <typename T>
TASK_AWARE_INLINE void feature_values(const T* masked, T least, T mean, T std, T* features, int64_t count) {
  const T scale = 1 / std;
#pragma GCC ivdep
  for (int64_t t = 0; t < count; ++t) {
    const T amplitude = masked[t] < least ? least : masked[t];
    features[t] = (static_cast<T>(kDecibelsPerNeper) * fast_log(amplitude) - mean) * scale;
  }
}

/// Sum of `grad` over the elements held at the threshold, and the number of elements at the maximum.
template <typename T>
TASK_AWARE_INLINE void held_values(const T* masked, const T* grad, const RowGradient<T>& row, int64_t count,
                                   T& held, T& ties) {
  constexpr int kLanes = 16;
  const T amin = row.amin, threshold = row.threshold, maximum = row.maximum;
  T held_lanes[kLanes] = {}, tie_lanes[kLanes] = {};
  for (int64_t start = 0; start < count; start += kLanes) {
    const int lanes = static_cast<int>(std::min<int64_t>(kLanes, count - start));
    for (int j = 0; j < lanes; ++j) {
      const T amplitude = masked[start + j] < amin ? amin : masked[start + j];
      held_lanes[j] += amplitude < threshold ? grad[start + j] : T(0);
      tie_lanes[j] += amplitude == maximum ? T(1) : T(0);
    }
  }
  for (int j = 0; j < kLanes; ++j) {
    held += held_lanes[j];
    ties += tie_lanes[j];
  }
}

/// Writes the gradient of the logits and adds to that of the mixture's mel. `scale` is 20 / (ln 10 * std), or
/// 0.
template <typename T>
TASK_AWARE_INLINE void gradient_values(const MaskTile<T>& tile, const T* grad_masked, const T* grad_features,
                                       T scale, const RowGradient<T>& row_in, T* grad_logits, T* grad_mel) {
  const RowGradient<T> row = row_in;
  const T* logits = tile.logits;
  const T* mel = tile.mel;
  const T floor = tile.floor;
#pragma GCC ivdep
  for (int64_t t = 0; t < tile.frames; ++t) {
    const T open = sigmoid(logits[t]);
    const T mask = floor + (1 - floor) * open;
    const T masked = mask * mel[t];
    const T through = masked >= row.threshold ? scale * grad_features[t] / masked : T(0);
    const T at_maximum = masked == row.maximum ? row.share : T(0);
    const T grad = grad_masked[t] + (masked >= row.amin ? through + at_maximum + row.poison : T(0));
    const T closed = odds_against(logits[t]) * open;  // 1 - open, to full precision
    grad_logits[t] = grad * mel[t] * ((1 - floor) * open * closed);
    grad_mel[t] += grad * mask;
  }
}

// The same for each type, compiled for several instruction sets.
#define TASK_AWARE_MASK_TILES(T)                                                                             \
  TASK_AWARE_CLONES void mask_tile(const MaskTile<T>& tile, T* masked) { mask_values(tile, masked); }        \
  TASK_AWARE_CLONES T largest_tile(const T* values, int64_t count, T start) {                                \
    return largest_value(values, count, start);                                                              \
  }                                                                                                          \
  TASK_AWARE_CLONES void feature_tile(const T* masked, T least, T mean, T std, T* features, int64_t count) { \
    feature_values(masked, least, mean, std, features, count);                                               \
  }                                                                                                          \
  TASK_AWARE_CLONES void held_tile(const T* masked, const T* grad, const RowGradient<T>& row, int64_t count, \
                                   T& held, T& ties) {                                                       \
    held_values(masked, grad, row, count, held, ties);                                                       \
  }                                                                                                          \
  TASK_AWARE_CLONES void gradient_tile(const MaskTile<T>& tile, const T* grad_masked,                        \
                                       const T* grad_features, T scale, const RowGradient<T>& row,           \
                                       T* grad_logits, T* grad_mel) {                                        \
    gradient_values(tile, grad_masked, grad_features, scale, row, grad_logits, grad_mel);                    \
  }

namespace {
TASK_AWARE_MASK_TILES(float)
TASK_AWARE_MASK_TILES(double)
}  // namespace

#undef TASK_AWARE_MASK_TILES

}  // namespace task_aware
