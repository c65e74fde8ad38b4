#pragma once

// The arithmetic of mel_mask: a (b,s) row forward, a (b,f) band of all sources backward. Formulas: mel_mask.cpp.

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "cpu/fast_math.h"
#include "cpu/streaming.h"
#include "cpu/vectors.h"

namespace task_aware {

constexpr double kDecibelsPerNeper = 20.0 / std::numbers::ln10;

template <typename V>
struct Mask {
  V open;    // sigmoid of the logits
  V closed;  // 1 - open, to full precision
  V value;
};

/// For the forward and the backward, which must agree in every bit for the backward to find the maximum again: no
/// product that is added to something here is of use elsewhere, or the compiler might fuse it in one of them only.
template <typename V>
TASK_AWARE_INLINE Mask<V> mask_of(V logits, scalar_t<V> floor) {
  const V odds = odds_against(logits);
  const V open = 1 / (1 + odds);
  return {open, odds * open, (1 + floor * odds) * open};
}

template <typename T, typename A = accumulate_t<T>>
struct RowParams {
  const T* logits;
  const T* mel;
  const A* mean;
  const A* std;
  int64_t F, frames;
  A floor, amin, ratio;
  T* masked;
  A* unrounded;  // `masked` itself, or as many values beside it where its type is narrower
  T* features;
  A* maximum;
};

template <typename T>
struct ForwardRow {
  using A = accumulate_t<T>;

  template <int kBytes>
  static TASK_AWARE_INLINE void run(const RowParams<T>& p) {
    constexpr int kWidth = kBytes / sizeof(A);
    using V = vector_t<A, kWidth>;
    V largest = V{} + p.amin;
    integers_t<V> broken{};
    for_vectors<kWidth>(p.F * p.frames, [&](int64_t n, int count) TASK_AWARE_LAMBDA {
      const V masked =
          mask_of(load<T, kWidth>(p.logits + n, count), p.floor).value * load<T, kWidth>(p.mel + n, count);
      store(p.masked + n, masked, count);
      if constexpr (!std::is_same_v<T, A>) store(p.unrounded + n, masked, count);
      largest = larger(largest, masked);
      broken |= masked != masked;
    });
    A maximum = largest[0];
    for (int k = 1; k < kWidth; ++k) maximum = std::max<A>(maximum, largest[k]);
    if (any(broken)) maximum = std::numeric_limits<A>::quiet_NaN();
    *p.maximum = maximum;

    const V least = V{} + std::max(p.amin, maximum * p.ratio);
    const A poison = std::isnan(maximum) ? maximum : A(0);
    for (int64_t f = 0; f < p.F; ++f) {
      const A scale = static_cast<A>(kDecibelsPerNeper) / p.std[f], offset = p.mean[f] / p.std[f] + poison;
      for_vectors<kWidth>(p.frames, [&](int64_t t, int count) TASK_AWARE_LAMBDA {
        const int64_t n = f * p.frames + t;
        const V masked = load<A, kWidth>(p.unrounded + n, count);
        store(p.features + n, fast_log(larger(least, masked)) * scale - offset, count);
      });
    }
  }
};

/// What one band of one source adds to the share of its row's maximum.
struct BandStatistics {
  double held = 0;  // gradient of the features held at the threshold
  double ties = 0;  // elements at the maximum
};

template <typename T, typename A = accumulate_t<T>>
struct BandParams {
  const T* logits;         // this band of source 0, as all that follow; a source is `row` elements
  const T* grad_masked;    // may be null
  const T* grad_features;  // may be null
  const T* mel;
  const A* maximum;  // [S]
  const A* share;    // [S] or null: what each element at the maximum receives for those held at the threshold
  int64_t S, row, frames;
  A floor, amin, ratio;
  A scale;     // 20 / (ln 10 * std[f])
  A* scratch;  // [2,frames]
  T* grad_logits;
  T* grad_mel;                 // null where not wanted
  BandStatistics* statistics;  // [S, stride F], set unless grad_features is null
  int64_t F;
  bool streams;
};

template <typename T>
struct BackwardBand {
  using A = accumulate_t<T>;

  template <int kBytes>
  static TASK_AWARE_INLINE void run(const BandParams<T>& p) {
    A* const grad_mel = p.scratch + p.frames;
    std::fill(grad_mel, grad_mel + p.frames, A(0));
    for (int64_t s = 0; s < p.S; ++s) {
      if (p.grad_masked == nullptr) {
        source<kBytes, false, true>(p, s, grad_mel);
      } else if (p.grad_features == nullptr) {
        source<kBytes, true, false>(p, s, grad_mel);
      } else {
        source<kBytes, true, true>(p, s, grad_mel);
      }
      write_values(p.grad_logits + s * p.row, p.frames, p.streams,
                   [&p](int64_t n) TASK_AWARE_LAMBDA { return static_cast<T>(p.scratch[n]); });
    }
    if (p.grad_mel == nullptr) return;
    write_values(p.grad_mel, p.frames, p.streams,
                 [grad_mel](int64_t n) TASK_AWARE_LAMBDA { return static_cast<T>(grad_mel[n]); });
  }

  template <int kBytes, bool kMasked, bool kFeatures>
  static TASK_AWARE_INLINE void source(const BandParams<T>& p, int64_t s, A* grad_mel) {
    constexpr int kWidth = kBytes / sizeof(A);
    using V = vector_t<A, kWidth>;
    const A maximum = p.maximum[s], threshold = maximum * p.ratio, least = std::max(p.amin, threshold);
    const A held_below = threshold > p.amin ? threshold : -std::numeric_limits<A>::infinity();
    const A share = p.share == nullptr ? A(0) : p.share[s];
    const A poison = std::isnan(maximum) ? maximum : A(0);
    // The next source's band lies a row further, where the processor would not look ahead by itself.
    const int64_t ahead = s + 1 < p.S ? p.row : p.frames - s * p.row;
    V held{};
    integers_t<V> ties{};
    for_vectors<kWidth>(p.frames, [&](int64_t n, int count) TASK_AWARE_LAMBDA {
      const int64_t at = s * p.row + n;
      __builtin_prefetch(p.logits + at + ahead);
      if constexpr (kMasked) __builtin_prefetch(p.grad_masked + at + ahead);
      if constexpr (kFeatures) __builtin_prefetch(p.grad_features + at + ahead);
      const Mask<V> mask = mask_of(load<T, kWidth>(p.logits + at, count), p.floor);
      const V mel = load<T, kWidth>(p.mel + n, count), masked = mask.value * mel;
      V grad{};
      if constexpr (kFeatures) {
        const V to_features = load<T, kWidth>(p.grad_features + at, count);
        const auto at_maximum = masked == maximum;  // -1 where true
        grad = (masked >= least ? p.scale * to_features / masked + poison : V{}) +
               (at_maximum ? V{} + share : V{});
        held += masked < held_below ? to_features : V{};
        ties -= at_maximum;
      }
      if constexpr (kMasked) grad += load<T, kWidth>(p.grad_masked + at, count);
      const V to_logits = grad * mel * ((1 - p.floor) * mask.open * mask.closed);
      if (p.grad_mel != nullptr) {
        const V to_mel = load<A, kWidth>(grad_mel + n, count) + grad * mask.value;
        store(grad_mel + n, to_mel, count);
      }
      store(p.scratch + n, to_logits, count);
    });
    if constexpr (kFeatures) {
      BandStatistics& statistics = p.statistics[s * p.F];
      statistics = {};
      for (int k = 0; k < kWidth; ++k) {
        statistics.held += held[k];
        statistics.ties += static_cast<double>(ties[k]);
      }
    }
  }
};

}  // namespace task_aware
