#pragma once

// reverb_mix: images[b,s,n] = gains[b,s] * sum over l <= min(n, L-1) of rirs[b,s,l] sources[b,s,n-l]
//             mixture[b,n] = background[b,n] + sum over s of images[b,s,n]
//             sources [B,S,N], rirs [B,S,L], gains [B,S], background [B,N]
//
// Partitioned overlap-save with a complex FFT of P points in shared memory; hop = P/2:
//   response[k] = FFT of rirs[k hop .. (k+1) hop), times gain / P                     k = 0 .. parts-1
//   window[m]   = FFT of sources[(m-1) hop .. (m+1) hop) + i * the same, `pairs` hops later
//   the last hop values of inverse FFT of (sum over k of response[k] window[j-k]) are images[j hop ..
//   (j+1) hop) in the real part and, `pairs` hops later, in the imaginary part        j = 0 .. pairs-1
// so that the two halves of the clip share each transform.
//
// Mapping: one block per (b,j) goes through the sources and adds up their mixture, for which every sample has its
// thread; without images it adds up spectra, and one transform goes back for all sources. A window of zeros costs one
// pass. Spectra are multiplied in registers.
// Traffic: responses transformed once and read `pairs` times from the L2 cache, sources read parts + 1 times, mostly
// from there, images and mixture written once. The limit is shared memory: (parts + 1) transforms per hop.

#include <algorithm>
#include <bit>
#include <utility>

#include "cuda/grid.h"
#include "cuda/launch.h"
#include "cuda/register_fft.cuh"

namespace task_aware {
namespace {

template <typename T>
struct ReverbParams {
  const T* sources;
  const T* rirs;
  const T* gains;
  const T* background;  // or null
  T* images;            // or null
  T* mixture;
  int64_t B, S, N;
  int64_t rir_stride;    // samples between rows of rirs
  int64_t shared_bytes;  // that a block of this device may have

  // set by plan
  int64_t L;  // samples of a response that reach a clip
  int64_t parts, pairs;
  int points, apart;  // apart: samples between the two stretches of a transform

  const Complex<T>*
      roots;  // those of every RegisterFft that there is, one table behind the other; after plan,
              // those of the chosen one
  Complex<T>*
      responses;  // the workspace, set by launch_reverb_mix: [B,S,parts,points], as RegisterFft hands it out

  __host__ __device__ int64_t rows() const { return B * S; }

  /// Chooses the transform that costs least and returns how many values the workspace holds.
  int64_t plan();
};

/// function(RegisterFft) of each size that there is; float64 has the registers for 16 values per thread.
template <typename T, typename Function>
void for_each_fft(Function function) {
  function.template operator()<RegisterFft<T, 1024>>();
  function.template operator()<RegisterFft<T, 4096>>();
  if constexpr (sizeof(T) == 4) {
    function.template operator()<RegisterFft<T, 8192>>();
    function.template operator()<RegisterFft<T, 16384>>();
  }
}

/// Values of `roots`.
template <typename T>
int64_t count_of_roots() {
  int64_t count = 0;
  for_each_fft<T>([&]<typename Fft>() { count += Fft::kRoots; });
  return count;
}

template <typename T>
int64_t ReverbParams<T>::plan() {
  TASK_AWARE_CHECK(N < (int64_t{1} << 30), "reverb_mix: the clips are too long for one call; cut them.");
  L = std::min(rir_stride, N);
  int64_t least = 0;
  const Complex<T>* next_roots = roots;
  for_each_fft<T>([&]<typename Fft>() {
    const Complex<T>* const own_roots = std::exchange(next_roots, next_roots + Fft::kRoots);
    if (Fft::kSharedBytes > static_cast<size_t>(shared_bytes)) return;
    const int64_t hop = Fft::kPoints / 2, n_parts = (L + hop - 1) / hop,
                  n_pairs = ((N + hop - 1) / hop + 1) / 2;
    const int64_t cost = n_pairs * (n_parts + 1) * Fft::kPoints * std::bit_width(unsigned{Fft::kPoints});
    if (least > 0 && cost >= least) return;
    least = cost;
    roots = own_roots;
    points = Fft::kPoints;
    parts = n_parts;
    pairs = n_pairs;
    apart = static_cast<int>(n_pairs * hop);
  });
  return rows() * parts * points;
}

template <typename Fft, typename T>
__global__ void __launch_bounds__(Fft::kThreads) response_kernel(ReverbParams<T> p) {
  Fft fft(dynamic_shared_memory(), p.roots, threadIdx.x);
  const int64_t row = blockIdx.x / p.parts, first = blockIdx.x % p.parts * (Fft::kPoints / 2);
  if (p.gains[row] == T(0)) return;
  const T scale = p.gains[row] / static_cast<T>(Fft::kPoints);
  const T* const rir = p.rirs + row * p.rir_stride;
  Complex<T>* const out = p.responses + int64_t{blockIdx.x} * Fft::kPoints + threadIdx.x;
  fft.begin([&](int i) {
    const bool inside = i < Fft::kPoints / 2 && first + i < p.L;
    return Complex<T>{inside ? scale * rir[first + i] : T(0), T(0)};
  });
  __syncthreads();
  fft.end([&](int v, Complex<T> bin) { store(out + v * Fft::kThreads, bin); });
}

/// Which of a transform's two stretches sound: a silent one stays exactly so beside a loud one.
struct Sounding {
  bool first = false, second = false;

  __device__ explicit operator bool() const { return first || second; }
  __device__ Sounding& operator|=(Sounding other) {
    first |= other.first;
    second |= other.second;
    return *this;
  }
  template <typename T>
  __device__ Complex<T> of(Complex<T> value) const {
    return {first ? value.re : T(0), second ? value.im : T(0)};
  }
};

// In float64 one block of a multiprocessor is enough: for more nvcc spills registers.
template <typename Fft, typename T>
__global__ void __launch_bounds__(Fft::kThreads, sizeof(T) == 8 ? 1 : 0) mix_kernel(ReverbParams<T> p) {
  constexpr int kHop = Fft::kPoints / 2;
  Fft fft(dynamic_shared_memory(), p.roots, threadIdx.x);
  const int b = blockIdx.y, j = blockIdx.x, n_samples = p.N;
  const int first = (j - 1) * kHop;  // value 0's samples
  const auto inside = [&](int n) { return static_cast<unsigned>(n) < static_cast<unsigned>(n_samples); };
  // visit(n, value) for the samples that value i of a transform stands for
  const auto both = [&](int i, Complex<T> value, auto visit) {
    if (inside(first + i)) visit(first + i, value.re);
    if (inside(first + p.apart + i)) visit(first + p.apart + i, value.im);
  };
  const auto add = [&](int n, T value) { p.mixture[b * p.N + n] += value; };
  fft.for_upper_half([&](int i) {
    both(i, {0, 0},
         [&](int n, T) { p.mixture[b * p.N + n] = p.background ? p.background[b * p.N + n] : T(0); });
  });

  Complex<T> sum[Fft::kValues] = {};
  Sounding sounds;
#pragma unroll 1
  for (int s = 0; s < p.S; ++s) {
    const int64_t row = b * p.S + s;
    const bool heard = p.gains[row] != T(0);
#pragma unroll 1
    for (int k = 0; k < p.parts && heard; ++k) {
      const int back = k * kHop;
      const Complex<T>* const response = p.responses + (row * p.parts + k) * Fft::kPoints + threadIdx.x;
      const T* const source = p.sources + row * p.N;
      Sounding here;
      fft.begin([&](int i) {
        const int n = first - back + i, m = n + p.apart;
        const Complex<T> value{inside(n) ? source[n] : T(0), inside(m) ? source[m] : T(0)};
        here |= {value.re != T(0), value.im != T(0)};
        return value;
      });
      here = {__syncthreads_or(here.first) != 0, __syncthreads_or(here.second) != 0};
      if (!here) continue;
      sounds |= here;
      fft.end([&](int v, Complex<T> bin) { sum[v] = sum[v] + load(response + v * Fft::kThreads) * bin; });
    }
    if (!p.images) continue;
    const auto write = [&](int n, T value) { p.images[row * p.N + n] = value; };
    if (sounds) {
      fft.inverse(sum, [&](int i, Complex<T> value) {
        both(i, sounds.of(value), [&](int n, T x) {
          write(n, x);
          add(n, x);
        });
      });
#pragma unroll
      for (int v = 0; v < Fft::kValues; ++v) sum[v] = {0, 0};
      sounds = {};
    } else {
      fft.for_upper_half([&](int i) { both(i, {0, 0}, write); });
    }
  }
  if (sounds) fft.inverse(sum, [&](int i, Complex<T> value) { both(i, sounds.of(value), add); });
}

/// `p` has been planned; `workspace` holds as many values as plan() returned.
template <typename T>
void launch_reverb_mix(ReverbParams<T> p, Complex<T>* workspace, cudaStream_t stream) {
  p.responses = workspace;
  for_each_fft<T>([&]<typename Fft>() {
    if (Fft::kPoints != p.points) return;
    const auto transforms = [&](const char* name, dim3 grid) {
      return Launch{name, grid, Fft::kThreads, stream, Fft::kSharedBytes};
    };
    if (p.S > 0) {
      launch(transforms("response_kernel", exact_grid(p.rows() * p.parts, "reverb_mix")),
             response_kernel<Fft, T>, p);
    }
    launch(transforms("mix_kernel", exact_grid(p.pairs, p.B, "reverb_mix")), mix_kernel<Fft, T>, p);
  });
}

}  // namespace
}  // namespace task_aware
