#pragma once

// mel_spectrogram: mel[c,f,t] = sum over k of bank[f,k] |X[c,t,k]|        waveform [C,N] -> mel [C,F,T]
//   X[c,t,k] = sum over n of window[n] waveform[c, reflect(t hop + n - n_fft/2)] exp(-2 pi i n k / n_fft)
//   T = N / hop + 1; bank [F,K] is zero outside of a few bins of each band, K = n_fft/2 + 1
//
// Mapping: one block takes up to four neighbouring frames of a clip. A frame's even samples are the real and its odd
// samples the imaginary part of a RegisterFft of n_fft/2, untangled with twiddles[k] = exp(-2 pi i k / n_fft), bins k and
// n_fft/2 - k together. Then eight lanes share a mel band: each weight is read once for all frames, and the frames' sums
// are written side by side. An n_fft that is no power of 2, or below 256, is transformed by the definition, n_fft
// operations for each bin.
// Traffic: the waveform n_fft/hop times, nearly all of it from the caches; the mel once. The limit is shared memory:
// some 600 wavefronts for a frame of 2048 samples, of which a multiprocessor does one per cycle.

#include <algorithm>
#include <bit>
#include <cstdint>
#include <utility>

#include "cuda/band_lanes.cuh"
#include "cuda/grid.h"
#include "cuda/launch.h"
#include "cuda/register_fft.cuh"

namespace task_aware {
namespace {

constexpr int kDefinitionThreads = 128;

template <typename T>
struct FrameParams {
  const T* waveform;           // [clips,N]
  const T* window;             // [n_fft]
  const Complex<T>* twiddles;  // [n_fft]
  const Complex<T>* roots;     // those of RegisterFft<T, n_fft / 2>; null where the definition is to be used
  const T* weights;            // the bands' filters, one behind the other
  const int* bands;  // [F,3]: the first bin, the one behind the last, where the filter begins in `weights`
  T* mel;            // [clips,F,frames]
  int64_t clips, N, frames, hop;
  int n_fft, F;
};

/// The windowed samples of one frame.
template <typename T>
class Frame {
 public:
  __device__ Frame(const FrameParams<T>& p, int64_t clip, int64_t t) : window_(p.window) {
    const int64_t begin = t * p.hop - p.n_fft / 2;  // sample 0 of the frame
    samples_ = p.waveform + clip * p.N + begin;
    first_ = static_cast<int>(max(-begin, int64_t{0}));
    last_ = static_cast<int>(min(p.N - 1 - begin, int64_t{p.n_fft}));
  }

  __device__ T operator[](int n) const { return window_[n] * sample(n); }

  /// Samples 2 i and 2 i + 1.
  __device__ Complex<T> pair(int i) const {
    const Complex<T> window = load(reinterpret_cast<const Complex<T>*>(window_) + i);
    return {window.re * sample(2 * i), window.im * sample(2 * i + 1)};
  }

 private:
  __device__ T sample(int n) const {
    const int reflected = first_ + abs(n - first_);
    return samples_[min(reflected, 2 * last_ - reflected)];
  }

  const T* window_;
  const T* samples_;
  int first_, last_;  // samples of the frame between which the clip lies
};

template <typename T>
__device__ T amplitude(Complex<T> x) {
  return sqrt(x.re * x.re + x.im * x.im);
}

/// Writes the mel of kFrames frames, from `t` on, whose amplitudes lie `apart` values apart; by a block of kThreads.
template <int kFrames, int kThreads, typename T>
__device__ __forceinline__ void write_mel(const FrameParams<T>& p, const T* amplitudes, int apart,
                                          int64_t clip, int64_t t) {
  constexpr int kLanesOfFrame = kBandLanes / kFrames;
  const int lane = threadIdx.x % kBandLanes;
  const int64_t frame = t + lane / kLanesOfFrame;
  for (int begin = 0; begin < p.F; begin += kThreads / kBandLanes) {
    const int f = begin + threadIdx.x / kBandLanes;
    T sums[kFrames] = {};
    if (f < p.F) {
      const int first = p.bands[3 * f], end = p.bands[3 * f + 1];
      const int shift = p.bands[3 * f + 2] - first;  // from a bin to its weight
      for (int k = first + lane; k < end; k += kBandLanes) {
        const T weight = p.weights[shift + k];
#pragma unroll
        for (int i = 0; i < kFrames; ++i) sums[i] += weight * amplitudes[i * apart + k];
      }
    }
    const T sum = sum_over_lanes(sums, lane);
    if (f < p.F && lane % kLanesOfFrame == 0 && frame < p.frames) {
      p.mel[(clip * p.F + f) * p.frames + frame] = sum;
    }
  }
}

/// Frames of a block: four, two or one, as 256 threads and the shared memory that needs no asking for allow.
template <typename Fft>
constexpr int kFramesOf = std::bit_floor(
    std::clamp(std::min(256u / Fft::kThreads, unsigned{48 * 1024 / Fft::kSharedBytes}), 1u, 4u));

template <typename Fft, typename T>
__global__ void __launch_bounds__(Fft::kThreads* kFramesOf<Fft>) mel_spectrogram_kernel(FrameParams<T> p) {
  constexpr int kFrames = kFramesOf<Fft>, kPoints = Fft::kPoints, kPairs = Fft::kValues / 2;
  auto* const shared = static_cast<Complex<T>*>(dynamic_shared_memory());
  const int64_t groups = (p.frames + kFrames - 1) / kFrames;
  const int64_t clip = blockIdx.x / groups, t = blockIdx.x % groups * kFrames;
  const int own = threadIdx.x / Fft::kThreads, thread = threadIdx.x % Fft::kThreads;
  // The last block may hold the last frame several times.
  const Frame<T> samples(p, clip, min(t + own, p.frames - 1));
  Fft fft(shared + own * Fft::kSharedValues, p.roots, thread);

  fft.begin([&](int i) { return samples.pair(i); });
  __syncthreads();
  Complex<T> bins[Fft::kValues];
  fft.end([&](int v, Complex<T> bin) { bins[v] = bin; });
  __syncthreads();
#pragma unroll
  for (int v = 0; v < Fft::kValues; ++v) fft.at(fft.bin_of(v)) = bins[v];
  __syncthreads();

  T lower[kPairs], upper[kPairs];  // the amplitudes of bins k and kPoints - k
  const T middle = amplitude(fft.at(kPoints / 2));
#pragma unroll
  for (int m = 0; m < kPairs; ++m) {
    const int k = thread + m * Fft::kThreads;
    const Complex<T> a = fft.at(k), b = conjugate(fft.at((kPoints - k) % kPoints));
    const Complex<T> even = a + b, odd = load(p.twiddles + k) * times_minus_i(a - b);
    lower[m] = T(0.5) * amplitude(even + odd);
    upper[m] = T(0.5) * amplitude(even - odd);
  }
  __syncthreads();
  constexpr int kApart = 2 * Fft::kSharedValues;
  T* const amplitudes = reinterpret_cast<T*>(shared);
#pragma unroll
  for (int m = 0; m < kPairs; ++m) {
    const int k = thread + m * Fft::kThreads;
    amplitudes[own * kApart + k] = lower[m];
    amplitudes[own * kApart + kPoints - k] = upper[m];
  }
  if (thread == 0) amplitudes[own * kApart + kPoints / 2] = middle;
  __syncthreads();
  write_mel<kFrames, kFrames * Fft::kThreads>(p, amplitudes, kApart, clip, t);
}

/// Shared values of a frame's samples, in groups of 16 bytes: nvcc reads the last one whole, though only its part
/// up to n_fft is used, and what is written beyond would be in a race with it.
constexpr int whole_groups(int n_fft) { return (n_fft + 3) / 4 * 4; }

template <typename T>
__global__ void __launch_bounds__(kDefinitionThreads) mel_spectrogram_by_definition_kernel(FrameParams<T> p) {
  const int half = p.n_fft / 2;
  T* const windowed = static_cast<T*>(dynamic_shared_memory());
  T* const amplitudes = windowed + whole_groups(p.n_fft);
  const int64_t clip = blockIdx.x / p.frames, t = blockIdx.x % p.frames;
  const Frame<T> samples(p, clip, t);
  for (int n = threadIdx.x; n < p.n_fft; n += kDefinitionThreads) windowed[n] = samples[n];
  __syncthreads();
  for (int k = threadIdx.x; k <= half; k += kDefinitionThreads) {
    Complex<T> sum{0, 0};
    for (int n = 0, turn = 0; n < p.n_fft; ++n) {
      sum = sum + windowed[n] * p.twiddles[turn];
      turn += k;
      if (turn >= p.n_fft) turn -= p.n_fft;
    }
    amplitudes[k] = amplitude(sum);
  }
  __syncthreads();
  write_mel<1, kDefinitionThreads>(p, amplitudes, 0, clip, t);
}

/// function(RegisterFft) of each size that there is.
template <typename T, typename Function>
void for_each_frame_fft(Function function) {
  const auto sizes = [&]<int... kPoints>(std::integer_sequence<int, kPoints...>) {
    (function.template operator()<RegisterFft<T, kPoints>>(), ...);
  };
  sizes(std::integer_sequence<int, 128, 256, 512, 1024, 2048, 4096>());
  if constexpr (sizeof(T) == 4) sizes(std::integer_sequence<int, 8192>());
}

/// Values of `roots` for frames of n_fft samples; an error where there is no transform of that size.
template <typename T>
int64_t count_of_roots(int64_t n_fft) {
  int64_t count = 0;
  for_each_frame_fft<T>([&]<typename Fft>() {
    if (Fft::kPoints == n_fft / 2) count = Fft::kRoots;
  });
  TASK_AWARE_CHECK(count > 0, "mel_spectrogram: n_fft is ", n_fft,
                   ", more than the CUDA kernels transform (16384 in float32, 8192 in float64); use "
                   "backend='reference'.");
  return count;
}

/// `block_bytes` of shared memory are what a block of the device may have.
template <typename T>
void launch_mel_spectrogram(const FrameParams<T>& p, int64_t block_bytes, cudaStream_t stream) {
  const int half = p.n_fft / 2;
  const auto launch_frames = [&](const char* name, auto kernel, int frames, unsigned int threads,
                                 size_t bytes) {
    TASK_AWARE_CHECK(bytes <= static_cast<size_t>(block_bytes), "mel_spectrogram: n_fft is ", p.n_fft,
                     ", more than a block of this GPU can hold in its ", block_bytes,
                     " bytes of shared memory; use a shorter frame, float32 or backend='reference'.");
    const int64_t blocks = p.clips * ((p.frames + frames - 1) / frames);
    launch({name, exact_grid(blocks, "mel_spectrogram"), threads, stream, bytes}, kernel, p);
  };
  if (p.roots == nullptr) {
    return launch_frames("mel_spectrogram_by_definition_kernel", mel_spectrogram_by_definition_kernel<T>, 1,
                         kDefinitionThreads, (whole_groups(p.n_fft) + half + 1) * sizeof(T));
  }
  for_each_frame_fft<T>([&]<typename Fft>() {
    if (Fft::kPoints != half) return;
    constexpr int kFrames = kFramesOf<Fft>;
    launch_frames("mel_spectrogram_kernel", mel_spectrogram_kernel<Fft, T>, kFrames, kFrames * Fft::kThreads,
                  kFrames * Fft::kSharedBytes);
  });
}

}  // namespace
}  // namespace task_aware
