// mel_spectrogram: mel[c,f,t] = sum over k of bank[f,k] |X[c,t,k]|        waveform [C,N] -> mel [C,F,T]
//   X[c,t,k] = sum over n of window[n] waveform[c, reflect(t hop + n - n_fft/2)] exp(-2 pi i n k / n_fft)
//   T = N / hop + 1; bank[f,k] = weights[bands[f,2] + k - bands[f,0]] for bands[f,0] <= k < bands[f,1], else 0
//
// In float64 whatever the waveform's type: float32 transforms are 3e-4 dB away where a bin lies 80 dB below another.
// A frame's even samples are the real and its odd samples the imaginary part of one complex FFT of n_fft/2,
// which is untangled with twiddles[k] = exp(-2 pi i k / n_fft): bins k and n_fft/2 - k together. A frame stays in
// the L1 cache from its samples to its mel bands. Any even n_fft works; lengths of the factors 2, 3 and 5 are fast.
// Traffic: the waveform n_fft/hop times, from the caches; the mel once. Threads share groups of frames, whose mel
// is written out in rows.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/arguments.h"
#include "common/butterflies.h"
#include "common/dispatch.h"
#include "common/parallel.h"
#include "cpu/fft.h"
#include "cpu/vectors.h"

namespace task_aware {
namespace {

constexpr int64_t kGroup = 16;    // frames that a thread takes at once
constexpr int64_t kPadding = 16;  // elements that a vector may reach beyond the last

/// The front end's tables as the frames need them.
template <typename T>
struct Tables {
  std::vector<double> window_even, window_odd;  // of the even and the odd samples, n_fft/2 each
  std::vector<double> cosines, sines;           // of the twiddles, n_fft/2 of them
  std::vector<T> weights;            // the bands' bins one after another, kPadding zeros behind each
  std::vector<int64_t> at;           // where a band's weights begin
  std::vector<int64_t> first, last;  // bins of a band
  int64_t n_fft, hop, F;

  Tables(const Tensor& window, const Tensor& twiddles, const Tensor& packed, const Tensor& bands,
         int64_t hop_in)
      : n_fft(window.size(0)), hop(hop_in), F(bands.size(0)) {
    for (int64_t k = 0; k < half(); ++k) {
      window_even.push_back(window.const_data_ptr<double>()[2 * k]);
      window_odd.push_back(window.const_data_ptr<double>()[2 * k + 1]);
      cosines.push_back(twiddles.const_data_ptr<double>()[2 * k]);
      sines.push_back(twiddles.const_data_ptr<double>()[2 * k + 1]);
    }
    for (int64_t f = 0; f < F; ++f) {
      const int* band = bands.const_data_ptr<int>() + 3 * f;
      TASK_AWARE_CHECK(band[0] >= 0 && band[0] <= band[1] && band[1] <= bins() && band[2] >= 0 &&
                           band[2] + band[1] - band[0] <= packed.size(0),
                       "mel_spectrogram: bands[", f,
                       "] refers to bins or weights out of range; call this operator "
                       "through task_aware.ops.");
      first.push_back(band[0]);
      last.push_back(band[1]);
      at.push_back(static_cast<int64_t>(weights.size()));
      const double* filter = packed.const_data_ptr<double>() + band[2];
      for (int k = 0; k < band[1] - band[0]; ++k) weights.push_back(static_cast<T>(filter[k]));
      weights.insert(weights.end(), kPadding, T(0));
    }
  }

  int64_t half() const { return n_fft / 2; }
  int64_t bins() const { return n_fft / 2 + 1; }
};

template <typename T>
struct FrameParams {
  const Tables<T>& tables;
  const FftPlan<double>& plan;
  const T* clip;  // [N]
  int64_t N;
  int64_t t, count;           // frames t .. t+count-1
  SplitComplex<double> data;  // [half] each, as `work`
  SplitComplex<double> work;
  T* amplitudes;  // [bins + kPadding], the padding zero
  T* mel;         // [F,kGroup]
};

template <typename T>
struct Frames {
  template <int kBytes>
  static TASK_AWARE_INLINE void run(const FrameParams<T>& p) {
    for (int64_t q = 0; q < p.count; ++q) {
      load_frame<kBytes>(p, (p.t + q) * p.tables.hop - p.tables.half());
      if (is_silent(p)) {  // as sources are where they are not active
        for (int64_t f = 0; f < p.tables.F; ++f) p.mel[f * kGroup + q] = T(0);
        continue;
      }
      amplitudes<kBytes>(p.plan.transform(p.data, p.work), p);
      mel_bands<kBytes>(p, q);
    }
  }

  static TASK_AWARE_INLINE bool is_silent(const FrameParams<T>& p) {
    const auto none = [&](const double* values) {
      return std::all_of(values, values + p.tables.half(), [](double value) { return value == 0; });
    };
    return none(p.data.re) && none(p.data.im);
  }

  /// The windowed frame whose first sample is `start`.
  template <int kBytes>
  static TASK_AWARE_INLINE void load_frame(const FrameParams<T>& p, int64_t start) {
    constexpr int kWidth = kBytes / sizeof(double);
    using V = vector_t<double, kWidth>;
    const int64_t half = p.tables.half();
    const double *const even = p.tables.window_even.data(), *const odd = p.tables.window_odd.data();
    int64_t m = 0;
    if (start >= 0 && start + 2 * half <= p.N) {
      for (; m + kWidth <= half; m += kWidth) {
        const auto low = load<T, kWidth>(p.clip + start + 2 * m),
                   high = load<T, kWidth>(p.clip + start + 2 * m + kWidth);
        const V re =
            __builtin_convertvector(evens(low, high, kLaneNumbers<V>), V) * load<double, kWidth>(even + m);
        const V im =
            __builtin_convertvector(odds(low, high, kLaneNumbers<V>), V) * load<double, kWidth>(odd + m);
        store(p.data.re + m, re);
        store(p.data.im + m, im);
      }
    }
    const auto sample = [&p](int64_t n) TASK_AWARE_LAMBDA {
      const int64_t index = std::abs(n);
      return static_cast<double>(p.clip[index < p.N ? index : 2 * (p.N - 1) - index]);
    };
    for (; m < half; ++m) {
      p.data.re[m] = even[m] * sample(start + 2 * m);
      p.data.im[m] = odd[m] * sample(start + 2 * m + 1);
    }
  }

  /// Twice the bin k of a frame and twice the conjugate of bin half - k, squared, from what the packed transform
  /// holds there; V may be a number.
  template <typename V>
  static TASK_AWARE_INLINE Complex<V> squares(Complex<V> bin, Complex<V> mirror, Complex<V> root) {
    const Complex<V> even = bin + conjugate(mirror), odd = root * times_minus_i(bin - conjugate(mirror));
    const Complex<V> sum = even + odd, difference = even - odd;
    return {sum.re * sum.re + sum.im * sum.im, difference.re * difference.re + difference.im * difference.im};
  }

  template <int kBytes>
  static TASK_AWARE_INLINE void amplitudes(SplitComplex<double> packed, const FrameParams<T>& p) {
    constexpr int kWidth = kBytes / sizeof(double);
    using V = vector_t<double, kWidth>;
    using Narrow = vector_t<T, kWidth>;
    const int64_t half = p.tables.half();
    const double *const cosines = p.tables.cosines.data(), *const sines = p.tables.sines.data();
    T* const to = p.amplitudes;
    const auto at = [&packed](int64_t k)
                        TASK_AWARE_LAMBDA { return Complex<double>{packed.re[k], packed.im[k]}; };
    to[0] = static_cast<T>(4 * (at(0).re + at(0).im) * (at(0).re + at(0).im));
    to[half] = static_cast<T>(4 * (at(0).re - at(0).im) * (at(0).re - at(0).im));
    int64_t k = 1;
    for (; k + kWidth - 1 < half - k - kWidth + 1; k += kWidth) {
      const int64_t mirror = half - k - kWidth + 1;
      const auto mirrored = [mirror](const double* from) TASK_AWARE_LAMBDA {
        return reversed(load<double, kWidth>(from + mirror), kLaneNumbers<V>);
      };
      const Complex<V> both =
          squares<V>({load<double, kWidth>(packed.re + k), load<double, kWidth>(packed.im + k)},
                     {mirrored(packed.re), mirrored(packed.im)},
                     {load<double, kWidth>(cosines + k), load<double, kWidth>(sines + k)});
      store(to + k, __builtin_convertvector(both.re, Narrow));
      store(to + mirror, reversed(__builtin_convertvector(both.im, Narrow), kLaneNumbers<V>));
    }
    for (; k <= half - k; ++k) {
      const Complex<double> both = squares<double>(at(k), at(half - k), {cosines[k], sines[k]});
      to[k] = static_cast<T>(both.re);
      to[half - k] = static_cast<T>(both.im);
    }
    for (int64_t bin = 0; bin <= half; ++bin) to[bin] = T(0.5) * std::sqrt(to[bin]);
  }

  template <int kBytes>
  static TASK_AWARE_INLINE void mel_bands(const FrameParams<T>& p, int64_t q) {
    constexpr int kWidth = kBytes / sizeof(T);
    for (int64_t f = 0; f < p.tables.F; ++f) {
      const int64_t first = p.tables.first[f], count = p.tables.last[f] - first;
      const T *const weights = p.tables.weights.data() + p.tables.at[f], *const bins = p.amplitudes + first;
      vector_t<T, kWidth> sum{};
      for (int64_t k = 0; k < count; k += kWidth)
        sum += load<T, kWidth>(weights + k) * load<T, kWidth>(bins + k);
      p.mel[f * kGroup + q] = total(sum);
    }
  }
};

template <typename T>
void mel_of_clips(const T* waveform, int64_t clips, int64_t N, const Tables<T>& tables, T* mel) {
  const int64_t half = tables.half(), frames = N / tables.hop + 1, groups = (frames + kGroup - 1) / kGroup;
  const auto plan = fft_plan<double>(half);
  parallel_for(0, clips * groups, grain_for(kGroup * tables.n_fft), [&](int64_t begin, int64_t end) {
    SplitArrays<double> transforms(2, half);
    std::vector<T> amplitudes(tables.bins() + kPadding), group_mel(tables.F * kGroup);
    for (int64_t index = begin; index < end; ++index) {
      const int64_t clip = index / groups, t = index % groups * kGroup, count = std::min(kGroup, frames - t);
      run_vectorised<Frames<T>>(FrameParams<T>{tables, *plan, waveform + clip * N, N, t, count, transforms[0],
                                               transforms[1], amplitudes.data(), group_mel.data()});
      for (int64_t f = 0; f < tables.F; ++f) {
        std::copy_n(group_mel.data() + f * kGroup, count, mel + (clip * tables.F + f) * frames + t);
      }
    }
  });
}

Tensor mel_spectrogram_cpu(const Tensor& waveform_in, const Tensor& window_in, const Tensor& twiddles_in,
                           const std::optional<Tensor>&, const Tensor& weights_in, const Tensor& bands_in,
                           int64_t hop) {
  check_mel_spectrogram_arguments(waveform_in, window_in, twiddles_in, weights_in, bands_in, hop,
                                  ScalarType::Double);
  const Tensor waveform = torch::stable::contiguous(waveform_in),
               window = torch::stable::contiguous(window_in);
  const Tensor twiddles = torch::stable::contiguous(twiddles_in),
               weights = torch::stable::contiguous(weights_in);
  const Tensor bands = torch::stable::contiguous(bands_in);
  const int64_t clips = waveform.size(0), N = waveform.size(1);
  Tensor mel = torch::stable::new_empty(waveform, {clips, bands.size(0), N / hop + 1});

  dispatch_real(waveform.scalar_type(), "mel_spectrogram", [&]<typename T>(TypeTag<T>) {
    const Tables<T> tables(window, twiddles, weights, bands, hop);
    mel_of_clips(waveform.const_data_ptr<T>(), clips, N, tables, mel.mutable_data_ptr<T>());
  });
  return mel;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(task_aware, m) {
  m.def(
      "mel_spectrogram(Tensor waveform, Tensor window, Tensor twiddles, Tensor? roots, Tensor weights, "
      "Tensor bands, int hop) "
      "-> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(task_aware, CPU, m) { m.impl("mel_spectrogram", TORCH_BOX(&mel_spectrogram_cpu)); }

}  // namespace task_aware
