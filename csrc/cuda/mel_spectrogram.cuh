#pragma once

// mel_spectrogram: mel[c,f,t] = sum over k of bank[f,k] |X[c,t,k]|        waveform [C,N] -> mel [C,F,T]
//   X[c,t,k] = sum over n of window[n] waveform[c, reflect(t hop + n - n_fft/2)] exp(-2 pi i n k / n_fft)
//   T = N / hop + 1; bank [F,K] is zero outside the bins bands[f,0] .. bands[f,1]-1; K = n_fft/2 + 1
//
// Mapping: one block per frame. Its even samples are the real and its odd samples the imaginary part of a
// complex FFT of n_fft/2 in shared memory, untangled with twiddles[k] = exp(-2 pi i k / n_fft); then one
// thread per mel band. An n_fft that is no power of 2 is transformed by the definition, n_fft operations for
// each bin. Traffic: the waveform n_fft/hop times, nearly all of it from the L2 cache; the mel once.

#include <limits>

#include "cuda/block_fft.cuh"
#include "cuda/grid.h"
#include "cuda/launch.h"

namespace task_aware {
namespace {

constexpr int kThreads = 128;
constexpr size_t kSharedLimit = 99 * 1024;  // of every architecture since sm_80

template <typename T>
struct FrameParams {
  const T* waveform;           // [clips,N]
  const T* window;             // [n_fft]
  const Complex<T>* twiddles;  // [n_fft]
  const T* bank;               // [F,K]
  const int* bands;            // [F,2]
  T* mel;                      // [clips,F,frames]
  int64_t clips, N, frames, hop;
  int n_fft, F;
};

template <typename T>
__device__ T amplitude(Complex<T> x) {
  return sqrt(x.re * x.re + x.im * x.im);
}

/// Bin k of the frame from the transform of its packed samples.
template <typename T>
__device__ Complex<T> untangle(const Complex<T>* packed, Complex<T> twiddle, int k, int half) {
  const Complex<T> a = packed[block_fft_position(k == half ? 0 : k, half)];
  const Complex<T> b = conjugate(packed[block_fft_position(k == 0 ? 0 : half - k, half)]);
  return T(0.5) * (a + b + twiddle * times_minus_i(a - b));
}

template <typename T>
__device__ Complex<T> transform_by_definition(const T* samples, const Complex<T>* twiddles, int k,
                                              int n_fft) {
  Complex<T> sum{0, 0};
  for (int n = 0, turn = 0; n < n_fft; ++n) {
    sum = sum + samples[n] * twiddles[turn];
    turn += k;
    if (turn >= n_fft) turn -= n_fft;
  }
  return sum;
}

template <typename T, bool kPowerOfTwo>
__global__ void __launch_bounds__(kThreads) mel_spectrogram_kernel(FrameParams<T> p) {
  const int half = p.n_fft / 2;
  auto* packed = static_cast<Complex<T>*>(dynamic_shared_memory());
  T* amplitudes = reinterpret_cast<T*>(packed + half);
  const int64_t clip = blockIdx.x / p.frames, t = blockIdx.x % p.frames;

  const T* waveform = p.waveform + clip * p.N;
  const auto sample = [&](int n) {
    int64_t index = t * p.hop + n - half;
    index = index < 0 ? -index : index;
    return p.window[n] * waveform[index < p.N ? index : 2 * (p.N - 1) - index];
  };
  for (int m = threadIdx.x; m < half; m += kThreads) packed[m] = {sample(2 * m), sample(2 * m + 1)};
  __syncthreads();

  if constexpr (kPowerOfTwo) block_fft_forward<kThreads>(packed, p.twiddles, 2, half);
  for (int k = threadIdx.x; k <= half; k += kThreads) {
    if constexpr (kPowerOfTwo) {
      amplitudes[k] = amplitude(untangle(packed, p.twiddles[k], k, half));
    } else {
      amplitudes[k] = amplitude(transform_by_definition(&packed[0].re, p.twiddles, k, p.n_fft));
    }
  }
  __syncthreads();

  for (int f = threadIdx.x; f < p.F; f += kThreads) {
    const T* weights = p.bank + int64_t{f} * (half + 1);
    T sum = 0;
    for (int k = p.bands[2 * f]; k < p.bands[2 * f + 1]; ++k) sum += weights[k] * amplitudes[k];
    p.mel[(clip * p.F + f) * p.frames + t] = sum;
  }
}

template <typename T>
void launch_mel_spectrogram(const FrameParams<T>& p, cudaStream_t stream) {
  const int half = p.n_fft / 2;
  const size_t shared_bytes = half * sizeof(Complex<T>) + (half + 1) * sizeof(T);
  TASK_AWARE_CHECK(
      shared_bytes <= kSharedLimit, "mel_spectrogram: n_fft is ", p.n_fft,
      ", more than a CUDA block can hold (16384 in float32, 8192 in float64); use backend='reference'.");
  const auto kernel =
      (half & (half - 1)) == 0 ? mel_spectrogram_kernel<T, true> : mel_spectrogram_kernel<T, false>;
  launch({"mel_spectrogram_kernel", exact_grid(p.clips * p.frames, "mel_spectrogram"), kThreads, stream,
          shared_bytes},
         kernel, p);
}

}  // namespace
}  // namespace task_aware
