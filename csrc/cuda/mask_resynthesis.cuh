#pragma once

// mask_resynthesis: sources[b,s] = istft(bins[b,s] X[b]), X = stft(waveform), of frames of n_fft samples
//   bins[b,s,k,t] = weights[0,k] masks[b,s,f,t] + weights[1,k] masks[b,s,f+1,t], f = bands[k]
//   waveform [B,N], masks [B,S,F,T], window [n_fft], weights [2,n_fft/2+1] -> sources [B,S,N]
//   X[b,t,k] = sum over m of window[m] waveform[b, reflect(t hop + m - n_fft/2)] exp(-2 pi i m k / n_fft)
//   sources[b,s,n] = sum over t of window[m] irfft(bins X)[m] / sum over t of window[m]^2,
//   m = n + n_fft/2 - t hop
// backward, the adjoint by the masks: with G the transform of frames of gradient / sum of window^2,
//   grad_bins[b,s,k,t] = c Re(X conj G) / n_fft, c = 1 for k = 0 and n_fft/2, otherwise 2; then sums over k
//
// Two frames t, t+1 are the real and the imaginary part of one transform Z of n_fft values. With P[k] = Z[k]
// and Q[k] = conj Z[n_fft - k], the bins of t are (P + Q) / 2 and those of t+1, times i, are (P - Q) / 2.
// Masked by a for t and by b for t+1 they are the transform (a + b) / 2 P + (a - b) / 2 Q of both, which goes
// back as it is.
//
// Mapping: spectra_kernel transforms the mixtures' pairs of frames, one per block, into a workspace
// [B,pairs,n_fft]. A block of sources_kernel goes through a stretch of a source's pairs and adds their
// samples up in device memory, where they stay in the L2 cache; it repeats the few pairs before its own that
// reach into its samples, so that no two blocks write one. A block of mask_gradient_kernel is a source's pair
// of frames; eight lanes share a mel band.
// Traffic: the waveform n_fft/hop times, from the caches; the workspace, n_fft/hop times as large, written once
// and read S times, from the L2 cache if it fits; masks read and sources written once. The limit is shared
// memory: of 2048 values some 1150 wavefronts for a pair of frames in spectra_kernel, 1530 in sources_kernel,
// which repeats up to half as many pairs as it has, and 1660 in mask_gradient_kernel. A multiprocessor does
// one per cycle.

#include <algorithm>
#include <cstdint>
#include <utility>

#include "common/resynthesis.h"
#include "cuda/band_lanes.cuh"
#include "cuda/grid.h"
#include "cuda/launch.h"
#include "cuda/register_fft.cuh"

namespace task_aware {
namespace {

template <typename T>
struct ResynthesisParams {
  const T* waveform;  // [B,N]
  const T* window;    // [n_fft]
  const T* weights;   // [2,bins]: of the bands f and f + 1
  const int* bands;   // [bins]: f
  const int* cells;   // [F+1]: where the bins of a band f begin
  const Complex<T>* roots;
  const T* masks;  // [B,S,F,T]
  T* sources;      // [B,S,N]
  const T* grad;   // of the sources
  T* grad_masks;
  int64_t B, S;
  int F;
  FrameGrid grid;
  int stretch;  // pairs of a block of sources_kernel

  // the workspace
  Complex<T>* spectra;  // [B,pairs,n_fft]
  T* inverse_envelope;  // [N]

  __device__ const T* clip(int64_t b) const { return waveform + b * grid.N; }
  __device__ Complex<T>* spectrum(int64_t b, int64_t pair) const {
    return spectra + (b * grid.pairs() + pair) * grid.n_fft;
  }
};

constexpr int kEnvelopeThreads = 256;

template <typename T>
__global__ void __launch_bounds__(kEnvelopeThreads) envelope_kernel(ResynthesisParams<T> p) {
  const int64_t n = int64_t{blockIdx.x} * kEnvelopeThreads + threadIdx.x;
  if (n < p.grid.N) p.inverse_envelope[n] = p.grid.inverse_envelope(p.window, n);
}

/// Transforms the values fft.at(i), in the natural order before and after.
template <typename T, int kPoints>
__device__ void transform(RegisterFft<T, kPoints>& fft) {
  using Fft = RegisterFft<T, kPoints>;
  fft.begin([&](int i) { return fft.at(i); });
  __syncthreads();
  Complex<T> bins[Fft::kValues];
  fft.end([&](int v, Complex<T> bin) { bins[v] = bin; });
  __syncthreads();
#pragma unroll
  for (int v = 0; v < Fft::kValues; ++v) fft.at(fft.bin_of(v)) = bins[v];
  __syncthreads();
}

/// Transforms two windowed frames of which sample(n) are the samples.
template <typename Fft, typename T, typename Sample>
__device__ __forceinline__ void transform_pair(const ResynthesisParams<T>& p, Fft& fft, int64_t pair,
                                               Sample sample) {
  const int start = p.grid.start(2 * pair), hop = p.grid.hop;
  const bool alone = 2 * pair + 1 == p.grid.frames;
  for (int i = threadIdx.x; i < Fft::kPoints; i += Fft::kThreads) {
    const T factor = p.window[i];
    fft.at(i) = {factor * sample(start + i), alone ? T(0) : factor * sample(start + hop + i)};
  }
  transform(fft);
}

template <typename Fft, typename T>
__global__ void __launch_bounds__(Fft::kThreads) spectra_kernel(ResynthesisParams<T> p) {
  Fft fft(dynamic_shared_memory(), p.roots, threadIdx.x);
  const int64_t b = blockIdx.x / p.grid.pairs(), pair = blockIdx.x % p.grid.pairs();
  const T* const clip = p.clip(b);
  const int N = static_cast<int>(p.grid.N);
  transform_pair(p, fft, pair, [&](int n) {
    const int reflected = abs(n);
    return clip[min(reflected, 2 * (N - 1) - reflected)];
  });
  Complex<T>* const to = p.spectrum(b, pair);
  for (int k = threadIdx.x; k < Fft::kPoints; k += Fft::kThreads) store(to + k, fft.at(k));
}

template <typename Fft, typename T>
__global__ void __launch_bounds__(Fft::kThreads) sources_kernel(ResynthesisParams<T> p) {
  constexpr int kPoints = Fft::kPoints, kBins = kPoints / 2 + 1;
  Fft fft(dynamic_shared_memory(), p.roots, threadIdx.x);
  // The masks of two frames: half of their sum and half of their difference, over n_fft.
  auto* const gains = static_cast<Complex<T>*>(dynamic_shared_memory()) + Fft::kSharedValues;
  const int64_t row = blockIdx.y;
  const int first = blockIdx.x * p.stretch, last = min(first + p.stretch, static_cast<int>(p.grid.pairs()));
  const int begin = p.grid.first_sample(first), end = p.grid.first_sample(last);
  const int hop = p.grid.hop, frames = p.grid.frames;
  T* const source = p.sources + row * p.grid.N;
  for (int n = begin + threadIdx.x; n < end; n += Fft::kThreads) source[n] = 0;

  for (int pair = p.grid.first_pair_at(begin); pair < last && begin < end; ++pair) {
    const bool alone = 2 * pair + 1 == frames;
    for (int f = threadIdx.x; f <= p.F; f += Fft::kThreads) {
      const T* const mask = p.masks + (row * p.F + f) * frames + 2 * pair;
      constexpr T kScale = T(0.5) / kPoints;
      const T a = f < p.F ? kScale * mask[0] : T(0), b = f < p.F && !alone ? kScale * mask[1] : T(0);
      gains[f] = {a + b, a - b};
    }
    __syncthreads();
    // Backwards as the conjugate of the forward transform of the conjugates: these, bins k and n_fft - k
    // together.
    const Complex<T>* const spectrum = p.spectrum(row / p.S, pair);
    for (int k = threadIdx.x; k < kBins; k += Fft::kThreads) {
      const int mirrored = (kPoints - k) % kPoints, f = p.bands[k];
      const Complex<T> gain = p.weights[k] * gains[f] + p.weights[kBins + k] * gains[f + 1];
      const Complex<T> bin = load(spectrum + k), mirror = load(spectrum + mirrored);
      fft.at(k) = {gain.re * bin.re + gain.im * mirror.re, gain.im * mirror.im - gain.re * bin.im};
      fft.at(mirrored) = {gain.re * mirror.re + gain.im * bin.re, gain.im * bin.im - gain.re * mirror.im};
    }
    transform(fft);
    const int start = p.grid.start(2 * pair);
    const int behind = min(end - start, kPoints + hop);
    T* const to = source + start;
    for (int i = max(begin - start, 0) + threadIdx.x; i < behind; i += Fft::kThreads) {
      T sum = to[i];
      if (i < kPoints) sum += p.window[i] * fft.at(i).re;
      if (i >= hop && !alone) sum -= p.window[i - hop] * fft.at(i - hop).im;
      to[i] = sum;
    }
  }
  __syncthreads();
  for (int n = begin + threadIdx.x; n < end; n += Fft::kThreads) source[n] *= p.inverse_envelope[n];
}

template <typename Fft, typename T>
__global__ void __launch_bounds__(Fft::kThreads) mask_gradient_kernel(ResynthesisParams<T> p) {
  constexpr int kPoints = Fft::kPoints, kBins = kPoints / 2 + 1;
  Fft fft(dynamic_shared_memory(), p.roots, threadIdx.x);
  const int64_t row = blockIdx.x / p.grid.pairs(), pair = blockIdx.x % p.grid.pairs(), t = 2 * pair;
  const T* const grad = p.grad + row * p.grid.N;
  const int N = static_cast<int>(p.grid.N);
  transform_pair(p, fft, pair,
                 [&](int n) { return 0 <= n && n < N ? p.inverse_envelope[n] * grad[n] : T(0); });

  // The gradients by the bins k of the two frames, in place of what this thread alone reads.
  const Complex<T>* const spectrum = p.spectrum(row / p.S, pair);
  for (int k = threadIdx.x; k < kBins; k += Fft::kThreads) {
    const int mirrored = (kPoints - k) % kPoints;
    const Complex<T> x = load(spectrum + k), x_mirror = conjugate(load(spectrum + mirrored));
    const Complex<T> g = fft.at(k), g_mirror = conjugate(fft.at(mirrored));
    const Complex<T> x_sum = x + x_mirror, x_difference = x - x_mirror;
    const Complex<T> g_sum = g + g_mirror, g_difference = g - g_mirror;
    const T scale = (k == mirrored ? T(0.25) : T(0.5)) / kPoints;
    fft.at(k) = {scale * (x_sum.re * g_sum.re + x_sum.im * g_sum.im),
                 scale * (x_difference.re * g_difference.re + x_difference.im * g_difference.im)};
  }
  __syncthreads();

  constexpr int kLanesOfFrame = kBandLanes / 2;
  const int lane = threadIdx.x % kBandLanes;
  const int64_t frame = t + lane / kLanesOfFrame;
  for (int first = 0; first < p.F; first += Fft::kThreads / kBandLanes) {
    const int f = first + threadIdx.x / kBandLanes;
    T sums[2] = {};
    if (f < p.F) {
      // The bins below its centre, of the cell before, and those above.
      const int centre = p.cells[f];
      for (int k = p.cells[max(f - 1, 0)] + lane; k < p.cells[f + 1]; k += kBandLanes) {
        const T weight = p.weights[k < centre ? kBins + k : k];
        const Complex<T> gradients = fft.at(k);
        sums[0] += weight * gradients.re;
        sums[1] += weight * gradients.im;
      }
    }
    const T sum = sum_over_lanes(sums, lane);
    if (f < p.F && lane % kLanesOfFrame == 0 && frame < p.grid.frames) {
      p.grad_masks[(row * p.F + f) * p.grid.frames + frame] = sum;
    }
  }
}

/// function(RegisterFft) of each size that there is: those in task_aware/ops/mask_resynthesis.py.
template <typename T, typename Function>
void for_each_resynthesis_fft(Function function) {
  const auto sizes = [&]<int... kPoints>(std::integer_sequence<int, kPoints...>) {
    (function.template operator()<RegisterFft<T, kPoints>>(), ...);
  };
  sizes(std::integer_sequence<int, 512, 1024, 2048>());
  if constexpr (sizeof(T) == 4) sizes(std::integer_sequence<int, 4096>());
}

/// Values of `roots`; an error where there is no transform of that size.
template <typename T>
int64_t count_of_resynthesis_roots(int64_t n_fft) {
  int64_t count = 0;
  for_each_resynthesis_fft<T>([&]<typename Fft>() {
    if (Fft::kPoints == n_fft) count = Fft::kRoots;
  });
  TASK_AWARE_CHECK(count > 0, "mask_resynthesis: there are no CUDA kernels for n_fft = ", n_fft,
                   "; use backend='reference'.");
  return count;
}

/// Forward where there are sources to write, otherwise backward. The workspace must be there.
template <typename T>
void launch_mask_resynthesis(ResynthesisParams<T> p, int64_t block_bytes, cudaStream_t stream) {
  TASK_AWARE_CHECK(p.grid.N < (int64_t{1} << 30),
                   "mask_resynthesis: the clips are too long for one call; cut them.");
  const int64_t pairs = p.grid.pairs(), repeated = p.grid.n_fft / (2 * p.grid.hop) + 1;
  p.stretch = static_cast<int>(2 * repeated);
  launch({"envelope_kernel", block_count(p.grid.N, kEnvelopeThreads), kEnvelopeThreads, stream},
         envelope_kernel<T>, p);
  for_each_resynthesis_fft<T>([&]<typename Fft>() {
    if (Fft::kPoints != p.grid.n_fft) return;
    const auto launch_transforms = [&](const char* name, auto kernel, dim3 grid, size_t bytes) {
      TASK_AWARE_CHECK(bytes <= static_cast<size_t>(block_bytes), "mask_resynthesis: n_fft is ", p.grid.n_fft,
                       ", more than a block of this GPU can hold in its ", block_bytes,
                       " bytes of shared memory; use a shorter frame, float32 or backend='reference'.");
      launch({name, grid, Fft::kThreads, stream, bytes}, kernel, p);
    };
    launch_transforms("spectra_kernel", spectra_kernel<Fft, T>, exact_grid(p.B * pairs, "mask_resynthesis"),
                      Fft::kSharedBytes);
    if (p.sources) {
      launch_transforms("sources_kernel", sources_kernel<Fft, T>,
                        exact_grid((pairs + p.stretch - 1) / p.stretch, p.B * p.S, "mask_resynthesis"),
                        Fft::kSharedBytes + (p.F + 1) * sizeof(Complex<T>));
    } else {
      launch_transforms("mask_gradient_kernel", mask_gradient_kernel<Fft, T>,
                        exact_grid(p.B * p.S * pairs, "mask_resynthesis"), Fft::kSharedBytes);
    }
  });
}

}  // namespace
}  // namespace task_aware
