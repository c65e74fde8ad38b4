// mel_spectrogram: mel[c,f,t] = sum over k of bank[f,k] |X[c,t,k]|        waveform [C,N] -> mel [C,F,T]
//   X[c,t,k] = sum over n of window[n] waveform[c, reflect(t hop + n - n_fft/2)] exp(-2 pi i n k / n_fft)
//   T = N / hop + 1; bank [F,K] is zero outside the bins bands[f,0] .. bands[f,1]-1; K = n_fft/2 + 1
//
// A frame's even samples are the real and its odd samples the imaginary part of one complex FFT of n_fft/2,
// which is untangled with twiddles[k] = exp(-2 pi i k / n_fft). kLanes neighbouring frames of a clip go
// through it together, one per vector lane. Any even n_fft works; lengths of the factors 2, 3 and 5 are fast.
// Traffic: the waveform n_fft/hop times, from the caches; the mel once. Threads share the groups of frames.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/arguments.h"
#include "common/dispatch.h"
#include "common/parallel.h"
#include "cpu/fft.h"

namespace task_aware {
namespace {

constexpr int64_t kLanes = 8;

template <typename T>
struct Tables {
  const T* window;
  const T* twiddles;  // [n_fft,2]
  const T* bank;      // [F,K]
  const int* bands;   // [F,2]
  int64_t n_fft;
  int64_t hop;
  int64_t F;

  int64_t bins() const { return n_fft / 2 + 1; }
};

template <typename T>
void load_frame(const T* clip, int64_t N, int64_t start, const T* window, int64_t half,
                SplitComplex<T> lane) {
  if (start >= 0 && start + 2 * half <= N) {
    const T* frame = clip + start;
    for (int64_t m = 0; m < half; ++m) {
      lane.re[m * kLanes] = window[2 * m] * frame[2 * m];
      lane.im[m * kLanes] = window[2 * m + 1] * frame[2 * m + 1];
    }
    return;
  }
  const auto sample = [&](int64_t n) {
    const int64_t index = std::abs(n);
    return clip[index < N ? index : 2 * (N - 1) - index];
  };
  for (int64_t m = 0; m < half; ++m) {
    lane.re[m * kLanes] = window[2 * m] * sample(start + 2 * m);
    lane.im[m * kLanes] = window[2 * m + 1] * sample(start + 2 * m + 1);
  }
}

/// From the transform of kLanes packed frames to their amplitudes [K,kLanes].
template <typename T>
TASK_AWARE_INLINE void amplitude_values(SplitComplex<T> packed, const Tables<T>& tables, T* amplitudes) {
  const int64_t half = tables.n_fft / 2;
  for (int64_t k = 0; k <= half; ++k) {
    const int64_t at = (k == half ? 0 : k) * kLanes, mirror = (k == 0 ? 0 : half - k) * kLanes;
    const T c = tables.twiddles[2 * k], s = tables.twiddles[2 * k + 1];
#pragma GCC ivdep
    for (int64_t q = 0; q < kLanes; ++q) {
      const T even_re = packed.re[at + q] + packed.re[mirror + q],
              even_im = packed.im[at + q] - packed.im[mirror + q];
      const T odd_re = packed.im[at + q] + packed.im[mirror + q],
              odd_im = packed.re[mirror + q] - packed.re[at + q];
      const T re = even_re + c * odd_re - s * odd_im, im = even_im + c * odd_im + s * odd_re;
      amplitudes[k * kLanes + q] = T(0.5) * std::sqrt(re * re + im * im);
    }
  }
}

/// mel[f,kLanes] from amplitudes [K,kLanes].
template <typename T>
TASK_AWARE_INLINE void mel_values(const T* amplitudes, const Tables<T>& tables, T* mel) {
  for (int64_t f = 0; f < tables.F; ++f) {
    T sum[kLanes] = {};
    for (int64_t k = tables.bands[2 * f]; k < tables.bands[2 * f + 1]; ++k) {
      const T weight = tables.bank[f * tables.bins() + k];
      for (int64_t q = 0; q < kLanes; ++q) sum[q] += weight * amplitudes[k * kLanes + q];
    }
    std::copy(sum, sum + kLanes, mel + f * kLanes);
  }
}

TASK_AWARE_CLONES void mel_of_frames(SplitComplex<float> packed, const Tables<float>& tables,
                                     float* amplitudes, float* mel) {
  amplitude_values(packed, tables, amplitudes);
  mel_values(amplitudes, tables, mel);
}

TASK_AWARE_CLONES void mel_of_frames(SplitComplex<double> packed, const Tables<double>& tables,
                                     double* amplitudes, double* mel) {
  amplitude_values(packed, tables, amplitudes);
  mel_values(amplitudes, tables, mel);
}

template <typename T>
void mel_of_clips(const T* waveform, int64_t clips, int64_t N, const Tables<T>& tables, T* mel) {
  const int64_t half = tables.n_fft / 2, frames = N / tables.hop + 1, groups = (frames + kLanes - 1) / kLanes;
  const auto plan = fft_plan<T>(half);
  parallel_for(0, clips * groups, grain_for(kLanes * tables.n_fft), [&](int64_t first, int64_t last) {
    std::vector<T> storage((4 * half + tables.bins() + tables.F) * kLanes);
    const SplitComplex<T> data{storage.data(), storage.data() + half * kLanes};
    const SplitComplex<T> work{data.im + half * kLanes, data.im + 2 * half * kLanes};
    T* amplitudes = work.im + half * kLanes;
    T* group_mel = amplitudes + tables.bins() * kLanes;
    for (int64_t index = first; index < last; ++index) {
      const int64_t clip = index / groups, t = index % groups * kLanes, count = std::min(kLanes, frames - t);
      for (int64_t q = 0; q < count; ++q) {
        load_frame(waveform + clip * N, N, (t + q) * tables.hop - half, tables.window, half,
                   SplitComplex<T>{data.re + q, data.im + q});
      }
      mel_of_frames(plan->transform(data, work, kLanes), tables, amplitudes, group_mel);
      for (int64_t f = 0; f < tables.F; ++f) {
        std::copy(group_mel + f * kLanes, group_mel + f * kLanes + count,
                  mel + (clip * tables.F + f) * frames + t);
      }
    }
  });
}

Tensor mel_spectrogram_cpu(const Tensor& waveform_in, const Tensor& window_in, const Tensor& twiddles_in,
                           const Tensor& bank_in, const Tensor& bands_in, int64_t hop) {
  const int64_t n_fft = window_in.size(0), F = bank_in.size(0);
  check_mel_spectrogram_arguments(waveform_in, window_in, twiddles_in, bank_in, bands_in, hop);
  const Tensor waveform = torch::stable::contiguous(waveform_in),
               window = torch::stable::contiguous(window_in);
  const Tensor twiddles = torch::stable::contiguous(twiddles_in), bank = torch::stable::contiguous(bank_in);
  const Tensor bands = torch::stable::contiguous(bands_in);
  const int64_t clips = waveform.size(0), N = waveform.size(1);
  Tensor mel = torch::stable::new_empty(waveform, {clips, F, N / hop + 1});

  dispatch_real(waveform.scalar_type(), "mel_spectrogram", [&]<typename T>(TypeTag<T>) {
    const Tables<T> tables{window.const_data_ptr<T>(),
                           twiddles.const_data_ptr<T>(),
                           bank.const_data_ptr<T>(),
                           bands.const_data_ptr<int>(),
                           n_fft,
                           hop,
                           F};
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
