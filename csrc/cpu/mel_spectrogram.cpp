// mel_spectrogram: mel[c,f,t] = sum over k of bank[f,k] |X[c,t,k]|        waveform [C,N] -> mel [C,F,T]
//   X[c,t,k] = sum over n of window[n] waveform[c, reflect(t hop + n - n_fft/2)] exp(-2 pi i n k / n_fft)
//   T = N / hop + 1; bank [F,K] is zero outside the bins bands[f,0] .. bands[f,1]-1; K = n_fft/2 + 1
//
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
#include "common/dispatch.h"
#include "common/parallel.h"
#include "cpu/fft.h"
#include "cpu/vectors.h"

namespace task_aware {
namespace {

constexpr int64_t kGroup = 16;    // frames that a thread takes at once
constexpr int64_t kPadding = 16;  // elements that a vector may reach beyond the last

/// The tensors of the front end as the frames need them.
template <typename T>
struct Tables {
  const T* window;
  std::vector<T> cosines, sines;     // of the twiddles, n_fft/2 of them
  std::vector<T> weights;            // the bands' bins one after another, each with kPadding zeros behind
  std::vector<int64_t> at;           // where a band's weights begin
  std::vector<int64_t> first, last;  // bins of a band
  int64_t n_fft, hop, F;

  Tables(const Tensor& window_in, const Tensor& twiddles, const Tensor& bank, const Tensor& bands,
         int64_t hop_in)
      : window(window_in.const_data_ptr<T>()), n_fft(window_in.size(0)), hop(hop_in), F(bank.size(0)) {
    for (int64_t k = 0; k < half(); ++k) {
      cosines.push_back(twiddles.const_data_ptr<T>()[2 * k]);
      sines.push_back(twiddles.const_data_ptr<T>()[2 * k + 1]);
    }
    for (int64_t f = 0; f < F; ++f) {
      first.push_back(bands.const_data_ptr<int>()[2 * f]);
      last.push_back(bands.const_data_ptr<int>()[2 * f + 1]);
      at.push_back(static_cast<int64_t>(weights.size()));
      const T* row = bank.const_data_ptr<T>() + f * bins();
      if (first[f] < last[f]) weights.insert(weights.end(), row + first[f], row + last[f]);
      weights.insert(weights.end(), kPadding, T(0));
    }
  }

  int64_t half() const { return n_fft / 2; }
  int64_t bins() const { return n_fft / 2 + 1; }
};

template <typename T>
struct FrameParams {
  const Tables<T>& tables;
  const FftPlan<T>& plan;
  const T* clip;  // [N]
  int64_t N;
  int64_t t, count;      // frames t .. t+count-1
  SplitComplex<T> data;  // [half] each, as `work`
  SplitComplex<T> work;
  T* amplitudes;  // [bins + kPadding], the padding zero
  T* mel;         // [F,kGroup]
};

template <typename T>
struct Frames {
  template <int kBytes>
  static TASK_AWARE_INLINE void run(const FrameParams<T>& p) {
    for (int64_t q = 0; q < p.count; ++q) {
      load_frame(p, (p.t + q) * p.tables.hop - p.tables.half());
      amplitudes(p.plan.transform(p.data, p.work), p);
      mel_bands<kBytes>(p, q);
    }
  }

  /// The windowed frame whose first sample is `start`.
  static TASK_AWARE_INLINE void load_frame(const FrameParams<T>& p, int64_t start) {
    const int64_t half = p.tables.half();
    const T* const window = p.tables.window;
    T *const re = p.data.re, *const im = p.data.im;
    if (start >= 0 && start + 2 * half <= p.N) {
      const T* const frame = p.clip + start;
#pragma GCC ivdep
      for (int64_t m = 0; m < half; ++m) {
        re[m] = window[2 * m] * frame[2 * m];
        im[m] = window[2 * m + 1] * frame[2 * m + 1];
      }
      return;
    }
    const auto sample = [&p](int64_t n) TASK_AWARE_LAMBDA {
      const int64_t index = std::abs(n);
      return p.clip[index < p.N ? index : 2 * (p.N - 1) - index];
    };
    for (int64_t m = 0; m < half; ++m) {
      re[m] = window[2 * m] * sample(start + 2 * m);
      im[m] = window[2 * m + 1] * sample(start + 2 * m + 1);
    }
  }

  static TASK_AWARE_INLINE void amplitudes(SplitComplex<T> packed, const FrameParams<T>& p) {
    const int64_t half = p.tables.half();
    const T *const cosines = p.tables.cosines.data(), *const sines = p.tables.sines.data();
    const T *const re = packed.re, *const im = packed.im;
    T* const to = p.amplitudes;
    to[0] = std::abs(re[0] + im[0]);
    to[half] = std::abs(re[0] - im[0]);
#pragma GCC ivdep
    for (int64_t k = 1; k <= half / 2; ++k) {
      const int64_t mirror = half - k;
      const T even_re = re[k] + re[mirror], even_im = im[k] - im[mirror];
      const T odd_re = im[k] + im[mirror], odd_im = re[mirror] - re[k];
      const T turned_re = cosines[k] * odd_re - sines[k] * odd_im;
      const T turned_im = cosines[k] * odd_im + sines[k] * odd_re;
      const T sum_re = even_re + turned_re, sum_im = even_im + turned_im;
      const T difference_re = even_re - turned_re, difference_im = even_im - turned_im;
      to[k] = T(0.5) * std::sqrt(sum_re * sum_re + sum_im * sum_im);
      to[mirror] = T(0.5) * std::sqrt(difference_re * difference_re + difference_im * difference_im);
    }
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
  const auto plan = fft_plan<T>(half);
  parallel_for(0, clips * groups, grain_for(kGroup * tables.n_fft), [&](int64_t begin, int64_t end) {
    std::vector<T> storage(4 * half + tables.bins() + kPadding + tables.F * kGroup);
    const SplitComplex<T> data{storage.data(), storage.data() + half},
        work{data.im + half, data.im + 2 * half};
    T* const amplitudes = work.im + half;
    T* const group_mel = amplitudes + tables.bins() + kPadding;
    for (int64_t index = begin; index < end; ++index) {
      const int64_t clip = index / groups, t = index % groups * kGroup, count = std::min(kGroup, frames - t);
      run_vectorised<Frames<T>>(
          FrameParams<T>{tables, *plan, waveform + clip * N, N, t, count, data, work, amplitudes, group_mel});
      for (int64_t f = 0; f < tables.F; ++f) {
        std::copy(group_mel + f * kGroup, group_mel + f * kGroup + count,
                  mel + (clip * tables.F + f) * frames + t);
      }
    }
  });
}

Tensor mel_spectrogram_cpu(const Tensor& waveform_in, const Tensor& window_in, const Tensor& twiddles_in,
                           const Tensor& bank_in, const Tensor& bands_in, int64_t hop) {
  check_mel_spectrogram_arguments(waveform_in, window_in, twiddles_in, bank_in, bands_in, hop);
  const Tensor waveform = torch::stable::contiguous(waveform_in),
               window = torch::stable::contiguous(window_in);
  const Tensor twiddles = torch::stable::contiguous(twiddles_in), bank = torch::stable::contiguous(bank_in);
  const Tensor bands = torch::stable::contiguous(bands_in);
  const int64_t clips = waveform.size(0), N = waveform.size(1);
  Tensor mel = torch::stable::new_empty(waveform, {clips, bank.size(0), N / hop + 1});

  dispatch_real(waveform.scalar_type(), "mel_spectrogram", [&]<typename T>(TypeTag<T>) {
    const Tables<T> tables(window, twiddles, bank, bands, hop);
    mel_of_clips(waveform.const_data_ptr<T>(), clips, N, tables, mel.mutable_data_ptr<T>());
  });
  return mel;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(task_aware, m) {
  m.def(
      "mel_spectrogram(Tensor waveform, Tensor window, Tensor twiddles, Tensor bank, Tensor bands, int hop) "
      "-> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(task_aware, CPU, m) { m.impl("mel_spectrogram", TORCH_BOX(&mel_spectrogram_cpu)); }

}  // namespace task_aware
