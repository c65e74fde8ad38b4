#pragma once

// reverb_mix: images[b,s,n] = gains[b,s] * sum over l <= min(n, L-1) of rirs[b,s,l] sources[b,s,n-l]
//             mixture[b,n] = background[b,n] + sum over s of images[b,s,n]
//             sources [B,S,N], rirs [B,S,L], gains [B,S], background [B,N]
//
// Partitioned overlap-save with a complex FFT of P points (a power of 2) in shared memory; hop = P/2:
//   response[k] = FFT of rirs[k hop .. (k+1) hop), times gain / P                     k = 0 .. parts-1
//   window[m]   = FFT of sources[(m-1) hop .. (m+1) hop) + i * the same, `pairs` hops later
//   the last hop values of inverse FFT of (sum over k of response[k] window[j-k]) are images[j hop ..
//   (j+1) hop) in the real part and, `pairs` hops later, in the imaginary part        j = 0 .. pairs-1
// so that the two halves of the clip share each transform. Windows start at m = 1 - parts.
//
// Mapping: one block per transform; the mixture is a pass of its own. Rows of gain 0 are filled with zeros.
// Traffic: every window is written once and read `parts` times, mostly from the L2 cache.

#include <algorithm>

#include "cuda/block_fft.cuh"
#include "cuda/grid.h"
#include "cuda/launch.h"

namespace task_aware {
namespace {

constexpr int kThreads = 256;
constexpr size_t kSharedBytes = 64 * 1024;  // the largest transform: 8192 points in float32, 4096 in float64
constexpr int64_t kLeastPoints = 1024;

template <typename T>
struct ReverbParams {
  const T* sources;
  const T* rirs;
  const T* gains;
  const T* background;  // or null
  T* images;
  T* mixture;
  int64_t B, S, N;
  int64_t rir_stride;  // samples between rows of rirs

  // set by plan_blocks
  int64_t L;  // samples of a response that reach a clip
  int64_t parts, pairs;
  int points;

  // the workspace, set by launch_reverb_mix
  Complex<T>* twiddles;   // [points]
  Complex<T>* responses;  // [rows,parts,points], in block_fft_forward's order
  Complex<T>* windows;    // [rows,pairs+parts-1,points]

  __host__ __device__ int64_t rows() const { return B * S; }
  __host__ __device__ int64_t window_count() const { return pairs + parts - 1; }

  /// Chooses the transform and returns how many values of T the workspace holds.
  int64_t plan_blocks() {
    L = std::min(rir_stride, N);
    points = static_cast<int>(kLeastPoints);
    while (points < 2 * L && 2 * points * sizeof(Complex<T>) <= kSharedBytes) points *= 2;
    const int64_t hop = points / 2;
    parts = (L + hop - 1) / hop;
    pairs = ((N + hop - 1) / hop + 1) / 2;
    return 2 * points * (1 + rows() * (parts + window_count()));
  }
};

template <typename T>
__global__ void __launch_bounds__(kThreads) twiddle_kernel(Complex<T>* twiddles, int points) {
  const int i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= points) return;
  Complex<double> value;
  sincospi(-2.0 * i / points, &value.im, &value.re);
  twiddles[i] = {static_cast<T>(value.re), static_cast<T>(value.im)};
}

/// The transform of what the threads have just put into `block`, to this block's place in `spectra`.
template <typename T>
__device__ void transform_into(Complex<T>* spectra, Complex<T>* block, const ReverbParams<T>& p) {
  __syncthreads();
  block_fft_forward<kThreads>(block, p.twiddles, 1, p.points);
  Complex<T>* out = spectra + int64_t{blockIdx.x} * p.points;
  for (int i = threadIdx.x; i < p.points; i += kThreads) out[i] = block[i];
}

template <typename T>
__global__ void __launch_bounds__(kThreads) response_kernel(ReverbParams<T> p) {
  auto* block = static_cast<Complex<T>*>(dynamic_shared_memory());
  const int64_t row = blockIdx.x / p.parts, part = blockIdx.x % p.parts;
  const int hop = p.points / 2;
  if (p.gains[row] == T(0)) return;
  const T scale = p.gains[row] / static_cast<T>(p.points);
  const T* rir = p.rirs + row * p.rir_stride;
  for (int i = threadIdx.x; i < p.points; i += kThreads) {
    const int64_t l = part * hop + i;
    block[i] = {i < hop && l < p.L ? scale * rir[l] : T(0), T(0)};
  }
  transform_into(p.responses, block, p);
}

template <typename T>
__global__ void __launch_bounds__(kThreads) window_kernel(ReverbParams<T> p) {
  auto* block = static_cast<Complex<T>*>(dynamic_shared_memory());
  const int64_t row = blockIdx.x / p.window_count(), m = blockIdx.x % p.window_count() - (p.parts - 1);
  if (p.gains[row] == T(0)) return;
  const int hop = p.points / 2;
  const T* source = p.sources + row * p.N;
  for (int i = threadIdx.x; i < p.points; i += kThreads) {
    const int64_t early = (m - 1) * hop + i, late = early + p.pairs * hop;
    block[i] = {early >= 0 && early < p.N ? source[early] : T(0),
                late >= 0 && late < p.N ? source[late] : T(0)};
  }
  transform_into(p.windows, block, p);
}

template <typename T>
__global__ void __launch_bounds__(kThreads) image_kernel(ReverbParams<T> p) {
  auto* block = static_cast<Complex<T>*>(dynamic_shared_memory());
  const int64_t row = blockIdx.x / p.pairs, j = blockIdx.x % p.pairs;
  const int hop = p.points / 2;
  const bool silent = p.gains[row] == T(0);
  if (!silent) {
    const Complex<T>* responses = p.responses + row * p.parts * p.points;
    const Complex<T>* windows = p.windows + (row * p.window_count() + j + p.parts - 1) * p.points;
    for (int i = threadIdx.x; i < p.points; i += kThreads) {
      Complex<T> sum{0, 0};
      for (int64_t k = 0; k < p.parts; ++k)
        sum = sum + responses[k * p.points + i] * windows[i - k * p.points];
      block[i] = sum;
    }
    __syncthreads();
    block_fft_inverse<kThreads>(block, p.twiddles, 1, p.points);
  }
  T* image = p.images + row * p.N;
  for (int i = threadIdx.x; i < hop; i += kThreads) {
    const int64_t early = j * hop + i, late = early + p.pairs * hop;
    if (early < p.N) image[early] = silent ? T(0) : block[hop + i].re;
    if (late < p.N) image[late] = silent ? T(0) : block[hop + i].im;
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) mixture_kernel(ReverbParams<T> p) {
  const int64_t count = p.B * p.N;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * kThreads) {
    const int64_t b = i / p.N, n = i - b * p.N;
    T sum = p.background ? p.background[i] : T(0);
    for (int64_t s = 0; s < p.S; ++s) sum += p.images[(b * p.S + s) * p.N + n];
    p.mixture[i] = sum;
  }
}

/// `p` has been planned; `workspace` holds as many values as plan_blocks() returned.
template <typename T>
void launch_reverb_mix(ReverbParams<T> p, T* workspace, cudaStream_t stream) {
  if (p.S > 0) {
    const int64_t response_blocks = p.rows() * p.parts, window_blocks = p.rows() * p.window_count();
    p.twiddles = reinterpret_cast<Complex<T>*>(workspace);
    p.responses = p.twiddles + p.points;
    p.windows = p.responses + response_blocks * p.points;
    const auto transforms = [&](const char* name, int64_t blocks) {
      return Launch{name, exact_grid(blocks, "reverb_mix"), kThreads, stream, p.points * sizeof(Complex<T>)};
    };
    launch({"twiddle_kernel", block_count(p.points, kThreads), kThreads, stream}, twiddle_kernel<T>,
           p.twiddles, p.points);
    launch(transforms("response_kernel", response_blocks), response_kernel<T>, p);
    launch(transforms("window_kernel", window_blocks), window_kernel<T>, p);
    launch(transforms("image_kernel", p.rows() * p.pairs), image_kernel<T>, p);
  }
  launch({"mixture_kernel", block_count(p.B * p.N, kThreads * 4), kThreads, stream}, mixture_kernel<T>, p);
}

}  // namespace
}  // namespace task_aware
