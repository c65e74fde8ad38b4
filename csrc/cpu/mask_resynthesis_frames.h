#pragma once

// What mask_resynthesis.cpp does to two frames at a time. T is float or double.

#include <algorithm>
#include <memory>
#include <vector>

#include "common/parallel.h"
#include "common/resynthesis.h"
#include "common/tensor.h"
#include "cpu/fft.h"
#include "cpu/vectors.h"

namespace task_aware {

constexpr int64_t kPadding = 16;  // elements that a vector may reach beyond the last

/// What all frames share.
template <typename T>
struct Tables {
  FrameGrid grid;
  int64_t F;
  const T* window;
  const int* cells;
  std::vector<T> lower, upper;  // a bin's weights of the bands f and f + 1 of its cell
  std::vector<T> inverse_envelope;

  Tables(const Tensor& waveform, const Tensor& window_in, const Tensor& weights, const Tensor& cells_in,
         int64_t hop)
      : grid(FrameGrid::of(waveform.size(1), window_in.size(0), hop)),
        F(cells_in.size(0) - 1),
        window(window_in.const_data_ptr<T>()),
        cells(cells_in.const_data_ptr<int>()),
        lower(grid.bins() + kPadding),
        upper(grid.bins() + kPadding),
        inverse_envelope(grid.N) {
    std::copy_n(weights.const_data_ptr<T>(), grid.bins(), lower.data());
    std::copy_n(weights.const_data_ptr<T>() + grid.bins(), grid.bins(), upper.data());
    for (int64_t n = 0; n < grid.N; ++n) {
      // Away from the ends it repeats itself.
      const bool repeats = n >= hop + grid.half() && (n + grid.half()) / hop < grid.frames;
      inverse_envelope[n] = repeats ? inverse_envelope[n - hop] : grid.inverse_envelope(window, n);
    }
  }
};

/// Two frames, t and t + 1, or the last one alone.
template <typename T>
struct Pair {
  const Tables<T>& tables;
  int64_t t;
  SplitComplex<T> data;  // the frames or their transform

  bool alone() const { return t + 1 == tables.grid.frames; }
};

/// P + Q and P - Q, for k = 0 .. n_fft/2.
template <typename T>
struct Bins {
  SplitComplex<T> sum, difference;
};

/// A row of samples to cut frames of, times `factors` unless null. It is reflected at its ends, or followed
/// by zeros.
template <typename T>
struct Row {
  const T* samples;
  const T* factors;
  bool reflects;
};

template <typename T>
struct LoadFrames {
  struct Params {
    Pair<T> pair;
    Row<T> row;
  };

  template <int>
  static TASK_AWARE_INLINE void run(const Params& p) {
    load(p, p.pair.t, p.pair.data.re);
    if (p.pair.alone()) {
      std::fill_n(p.pair.data.im, p.pair.tables.grid.n_fft, T(0));
    } else {
      load(p, p.pair.t + 1, p.pair.data.im);
    }
  }

  static TASK_AWARE_INLINE void load(const Params& p, int64_t t, T* to) {
    const FrameGrid& grid = p.pair.tables.grid;
    const T *const window = p.pair.tables.window, *const samples = p.row.samples,
                   *const factors = p.row.factors;
    const int64_t start = grid.start(t);
    const int64_t first = std::clamp<int64_t>(-start, 0, grid.n_fft);
    const int64_t last = std::clamp<int64_t>(grid.N - start, first, grid.n_fft);
    const auto outside = [&](int64_t m) TASK_AWARE_LAMBDA {
      return p.row.reflects ? window[m] * samples[grid.reflected(start + m)] : T(0);
    };
    for (int64_t m = 0; m < first; ++m) to[m] = outside(m);
    if (factors) {
      TASK_AWARE_IVDEP
      for (int64_t m = first; m < last; ++m) to[m] = window[m] * factors[start + m] * samples[start + m];
    } else {
      TASK_AWARE_IVDEP
      for (int64_t m = first; m < last; ++m) to[m] = window[m] * samples[start + m];
    }
    for (int64_t m = last; m < grid.n_fft; ++m) to[m] = outside(m);
  }
};

template <typename T>
struct SeparateBins {
  struct Params {
    Pair<T> pair;
    Bins<T> to;
  };

  template <int>
  static TASK_AWARE_INLINE void run(const Params& p) {
    const int64_t n_fft = p.pair.tables.grid.n_fft;
    const T *const re = p.pair.data.re, *const im = p.pair.data.im;
    const auto [sum_re, sum_im] = p.to.sum;
    const auto [difference_re, difference_im] = p.to.difference;
    sum_re[0] = 2 * re[0], difference_im[0] = 2 * im[0];
    sum_im[0] = difference_re[0] = 0;
    TASK_AWARE_IVDEP
    for (int64_t k = 1; k <= n_fft / 2; ++k) {
      sum_re[k] = re[k] + re[n_fft - k];
      sum_im[k] = im[k] - im[n_fft - k];
      difference_re[k] = re[k] - re[n_fft - k];
      difference_im[k] = im[k] + im[n_fft - k];
    }
  }
};

/// The transform of a source's two frames from the mixture's, scaled for the way back.
template <typename T>
struct MaskBins {
  struct Params {
    Pair<T> pair;
    const T* masks;  // [F,T]
    Bins<T> mixture;
    SplitComplex<T> of_bands, of_bins;  // work: the masks of the first and of the second frame
  };

  template <int kBytes>
  static TASK_AWARE_INLINE void run(const Params& p) {
    const FrameGrid& grid = p.pair.tables.grid;
    const int64_t n_fft = grid.n_fft, half = grid.half();
    const T scale = T(0.5) / static_cast<T>(n_fft);
    for (int64_t f = 0; f < p.pair.tables.F; ++f) {
      const T* const mask = p.masks + f * grid.frames + p.pair.t;
      p.of_bands.re[f] = scale * mask[0];
      p.of_bands.im[f] = p.pair.alone() ? T(0) : scale * mask[1];
    }
    carry<kBytes>(p);

    const auto [a, b] = p.of_bins;
    const auto [sum_re, sum_im] = p.mixture.sum;
    const auto [difference_re, difference_im] = p.mixture.difference;
    const auto [re, im] = p.pair.data;
    TASK_AWARE_IVDEP
    for (int64_t k = 0; k <= half; ++k) {
      re[k] = a[k] * sum_re[k] + b[k] * difference_re[k];
      im[k] = a[k] * sum_im[k] + b[k] * difference_im[k];
    }
    TASK_AWARE_IVDEP
    for (int64_t k = 1; k < half; ++k) {
      re[n_fft - k] = a[k] * sum_re[k] - b[k] * difference_re[k];
      im[n_fft - k] = b[k] * difference_im[k] - a[k] * sum_im[k];
    }
  }

  /// From bands to bins. A vector may reach into the next cell, which comes later and writes its own.
  template <int kBytes>
  static TASK_AWARE_INLINE void carry(const Params& p) {
    constexpr int kWidth = kBytes / sizeof(T);
    const Tables<T>& tables = p.pair.tables;
    const auto [first, second] = p.of_bands;
    for (int64_t f = 0; f < tables.F; ++f) {
      for (int64_t k = tables.cells[f]; k < tables.cells[f + 1]; k += kWidth) {
        const auto lower = load<T, kWidth>(tables.lower.data() + k),
                   upper = load<T, kWidth>(tables.upper.data() + k);
        store(p.of_bins.re + k, lower * first[f] + upper * first[f + 1]);
        store(p.of_bins.im + k, lower * second[f] + upper * second[f + 1]);
      }
    }
  }
};

/// Adds two windowed frames to the samples begin .. end-1 of a source.
template <typename T>
struct OverlapAdd {
  struct Params {
    Pair<T> pair;
    T* source;
    int64_t begin, end;
  };

  template <int>
  static TASK_AWARE_INLINE void run(const Params& p) {
    add(p, p.pair.t, p.pair.data.re);
    if (!p.pair.alone()) add(p, p.pair.t + 1, p.pair.data.im);
  }

  static TASK_AWARE_INLINE void add(const Params& p, int64_t t, const T* frame) {
    const FrameGrid& grid = p.pair.tables.grid;
    const T* const window = p.pair.tables.window;
    const int64_t start = grid.start(t);
    const int64_t first = std::clamp<int64_t>(p.begin - start, 0, grid.n_fft);
    const int64_t last = std::clamp<int64_t>(p.end - start, first, grid.n_fft);
    TASK_AWARE_IVDEP
    for (int64_t m = first; m < last; ++m) p.source[start + m] += window[m] * frame[m];
  }
};

/// The gradient by two frames' masks.
template <typename T>
struct MaskGradient {
  struct Params {
    Pair<T> pair;
    Bins<T> mixture, gradient;
    SplitComplex<T> of_bands, of_bins;  // work: the gradients of the first and of the second frame
    T* grad_masks;                      // [F,T]
  };

  template <int>
  static TASK_AWARE_INLINE void run(const Params& p) {
    const Tables<T>& tables = p.pair.tables;
    products(p.mixture.sum, p.gradient.sum, tables.grid, p.of_bins.re);
    products(p.mixture.difference, p.gradient.difference, tables.grid, p.of_bins.im);
    const auto [first, second] = p.of_bands;
    first[0] = second[0] = 0;
    for (int64_t f = 0; f < tables.F; ++f) {
      T sums[4] = {};
      for (int64_t k = tables.cells[f]; k < tables.cells[f + 1]; ++k) {
        sums[0] += tables.lower[k] * p.of_bins.re[k], sums[1] += tables.upper[k] * p.of_bins.re[k];
        sums[2] += tables.lower[k] * p.of_bins.im[k], sums[3] += tables.upper[k] * p.of_bins.im[k];
      }
      T* const to = p.grad_masks + f * tables.grid.frames + p.pair.t;
      to[0] = first[f] + sums[0], first[f + 1] = sums[1];
      if (!p.pair.alone()) to[1] = second[f] + sums[2], second[f + 1] = sums[3];
    }
  }

  /// c / n_fft Re(X conj G) of twice the X and twice the G.
  static TASK_AWARE_INLINE void products(SplitComplex<T> x, SplitComplex<T> g, const FrameGrid& grid, T* to) {
    const int64_t half = grid.half();
    const T scale = T(0.5) / static_cast<T>(grid.n_fft);
    TASK_AWARE_IVDEP
    for (int64_t k = 0; k <= half; ++k) to[k] = scale * (x.re[k] * g.re[k] + x.im[k] * g.im[k]);
    to[0] *= T(0.5), to[half] *= T(0.5);
  }
};

/// One thread's arrays.
template <typename T>
class PairTransforms {
 public:
  explicit PairTransforms(const Tables<T>& tables)
      : tables_(tables),
        plan_(fft_plan<T>(tables.grid.n_fft)),
        transforms_(2, tables.grid.n_fft),
        bins_(5, tables.grid.bins() + kPadding),
        bands_(1, tables.F + 1) {
    mixture = {bins_[0], bins_[1]}, gradient = {bins_[2], bins_[3]};
  }

  Bins<T> mixture, gradient;

  void analyse(int64_t t, Row<T> row, Bins<T> to) {
    run_vectorised<LoadFrames<T>>(typename LoadFrames<T>::Params{at(t, transforms_[0]), row});
    const SplitComplex<T> transform = plan_->transform(transforms_[0], transforms_[1]);
    run_vectorised<SeparateBins<T>>(typename SeparateBins<T>::Params{at(t, transform), to});
  }

  /// Adds the mixture's bins, masked, to samples begin .. end-1 of a source.
  void add_masked(int64_t t, const T* masks, T* source, int64_t begin, int64_t end) {
    run_vectorised<MaskBins<T>>(
        typename MaskBins<T>::Params{at(t, transforms_[0]), masks, mixture, bands_[0], bins_[4]});
    const auto frames = plan_->transform(transforms_[0].swapped(), transforms_[1].swapped()).swapped();
    run_vectorised<OverlapAdd<T>>(typename OverlapAdd<T>::Params{at(t, frames), source, begin, end});
  }

  void write_gradient(int64_t t, T* grad_masks) {
    run_vectorised<MaskGradient<T>>(typename MaskGradient<T>::Params{at(t, transforms_[0]), mixture, gradient,
                                                                     bands_[0], bins_[4], grad_masks});
  }

 private:
  Pair<T> at(int64_t t, SplitComplex<T> data) const { return {tables_, t, data}; }

  const Tables<T>& tables_;
  std::shared_ptr<const FftPlan<T>> plan_;
  SplitArrays<T> transforms_, bins_, bands_;
};

}  // namespace task_aware
