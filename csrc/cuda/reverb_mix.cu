// reverb_mix: images[b,s,n] = gains[b,s] * sum over l <= min(n, L-1) of rirs[b,s,l] sources[b,s,n-l]
//             mixture[b,n] = background[b,n] + sum over s of images[b,s,n]             sources [B,S,N], rirs
//             [B,S,L]
//
// Partitioned overlap-save with a complex FFT of P points (a power of 2) in shared memory; hop = P/2:
//   response[k] = FFT of rirs[k hop .. (k+1) hop), times gain / P                     k = 0 .. parts-1
//   window[m]   = FFT of sources[(m-1) hop .. (m+1) hop) + i * the same, `pairs` hops later
//   the last hop values of inverse FFT of (sum over k of response[k] window[j-k]) are images[j hop .. (j+1)
//   hop) in the real part and, `pairs` hops later, in the imaginary part                      j = 0 ..
//   pairs-1
// so that the two halves of the clip share each transform. Windows start at m = 1 - parts.
//
// Mapping: one block per transform; the mixture is a pass of its own. Rows of gain 0 are filled with zeros.
// Traffic: every window is written once and read `parts` times, mostly from the L2 cache.

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <tuple>

#include "common/block_fft.h"
#include "common/cuda.h"

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
  Complex<T>* twiddles;   // [points]
  Complex<T>* responses;  // [rows,parts,points], in block_fft_forward's order
  Complex<T>* windows;    // [rows,pairs+parts-1,points]
  int64_t B, S, N, L;
  int64_t rir_stride;  // samples between rows of rirs: L before it was cut at N
  int64_t parts, pairs;
  int points;

  __host__ __device__ int64_t rows() const { return B * S; }
  __host__ __device__ int64_t window_count() const { return pairs + parts - 1; }
};

template <typename T>
__global__ void __launch_bounds__(kThreads) twiddle_kernel(Complex<T>* twiddles, int points) {
  const int i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= points) return;
  Complex<double> value;
  sincospi(-2.0 * i / points, &value.im, &value.re);
  twiddles[i] = {static_cast<T>(value.re), static_cast<T>(value.im)};
}

template <typename T>
__device__ Complex<T>* shared_block() {
  extern __shared__ __align__(16) unsigned char shared[];
  return reinterpret_cast<Complex<T>*>(shared);
}

template <typename T>
__global__ void __launch_bounds__(kThreads) response_kernel(ReverbParams<T> p) {
  Complex<T>* block = shared_block<T>();
  const int64_t row = blockIdx.x / p.parts, part = blockIdx.x % p.parts;
  const int hop = p.points / 2;
  if (p.gains[row] == T(0)) return;
  const T scale = p.gains[row] / static_cast<T>(p.points);
  const T* rir = p.rirs + row * p.rir_stride;
  for (int i = threadIdx.x; i < p.points; i += kThreads) {
    const int64_t l = part * hop + i;
    block[i] = {i < hop && l < p.L ? scale * rir[l] : T(0), T(0)};
  }
  __syncthreads();
  block_fft_forward(block, p.twiddles, 1, p.points, threadIdx.x, kThreads);
  Complex<T>* out = p.responses + int64_t{blockIdx.x} * p.points;
  for (int i = threadIdx.x; i < p.points; i += kThreads) out[i] = block[i];
}

template <typename T>
__global__ void __launch_bounds__(kThreads) window_kernel(ReverbParams<T> p) {
  Complex<T>* block = shared_block<T>();
  const int64_t row = blockIdx.x / p.window_count(), m = blockIdx.x % p.window_count() - (p.parts - 1);
  if (p.gains[row] == T(0)) return;
  const int hop = p.points / 2;
  const T* source = p.sources + row * p.N;
  for (int i = threadIdx.x; i < p.points; i += kThreads) {
    const int64_t early = (m - 1) * hop + i, late = early + p.pairs * hop;
    block[i] = {early >= 0 && early < p.N ? source[early] : T(0),
                late >= 0 && late < p.N ? source[late] : T(0)};
  }
  __syncthreads();
  block_fft_forward(block, p.twiddles, 1, p.points, threadIdx.x, kThreads);
  Complex<T>* out = p.windows + int64_t{blockIdx.x} * p.points;
  for (int i = threadIdx.x; i < p.points; i += kThreads) out[i] = block[i];
}

template <typename T>
__global__ void __launch_bounds__(kThreads) image_kernel(ReverbParams<T> p) {
  Complex<T>* block = shared_block<T>();
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
    block_fft_inverse(block, p.twiddles, 1, p.points, threadIdx.x, kThreads);
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

template <typename T, typename Kernel>
void launch_blocks(Kernel kernel, const ReverbParams<T>& p, int64_t blocks, cudaStream_t stream) {
  TASK_AWARE_CHECK(blocks <= std::numeric_limits<int>::max(),
                   "reverb_mix: there are too many samples for one launch; pass fewer clips.");
  const size_t shared = p.points * sizeof(Complex<T>);
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared));
  kernel<<<static_cast<unsigned int>(blocks), kThreads, shared, stream>>>(p);
}

template <typename T>
void convolve(ReverbParams<T> p, const Tensor& like, cudaStream_t stream) {
  p.points = static_cast<int>(kLeastPoints);
  while (p.points < 2 * p.L && 2 * p.points * sizeof(Complex<T>) <= kSharedBytes) p.points *= 2;
  const int64_t hop = p.points / 2;
  p.parts = (p.L + hop - 1) / hop;
  p.pairs = ((p.N + hop - 1) / hop + 1) / 2;
  const int64_t response_blocks = p.rows() * p.parts, window_blocks = p.rows() * p.window_count();
  // Freed for this stream alone when it goes out of scope, as torch frees every tensor.
  const Tensor workspace =
      torch::stable::new_empty(like, {(1 + response_blocks + window_blocks) * p.points * 2});
  p.twiddles = reinterpret_cast<Complex<T>*>(workspace.mutable_data_ptr<T>());
  p.responses = p.twiddles + p.points;
  p.windows = p.responses + response_blocks * p.points;
  twiddle_kernel<T><<<block_count(p.points, kThreads), kThreads, 0, stream>>>(p.twiddles, p.points);
  launch_blocks(response_kernel<T>, p, response_blocks, stream);
  launch_blocks(window_kernel<T>, p, window_blocks, stream);
  launch_blocks(image_kernel<T>, p, p.rows() * p.pairs, stream);
  check_launch("reverb_mix");
}

std::tuple<Tensor, Tensor> reverb_mix_cuda(const Tensor& sources_in, const Tensor& rirs_in,
                                           const Tensor& gains_in,
                                           const std::optional<Tensor>& background_in) {
  TASK_AWARE_CHECK(sources_in.dim() == 3 && rirs_in.dim() == 3 && gains_in.dim() == 2 &&
                       sources_in.size(0) == rirs_in.size(0) && sources_in.size(1) == rirs_in.size(1) &&
                       sources_in.size(0) == gains_in.size(0) && sources_in.size(1) == gains_in.size(1),
                   "reverb_mix: rirs must be [B,S,L] and gains [B,S] of the sources' B and S.");
  TASK_AWARE_CHECK(rirs_in.size(2) >= 1, "reverb_mix: rirs must hold at least one sample.");
  TASK_AWARE_CHECK(
      !background_in || (background_in->dim() == 2 && background_in->size(0) == sources_in.size(0) &&
                         background_in->size(1) == sources_in.size(2)),
      "reverb_mix: background must be [B,N].");
  TASK_AWARE_CHECK(same_device(sources_in, rirs_in) && same_device(sources_in, gains_in) &&
                       (!background_in || same_device(sources_in, *background_in)),
                   "reverb_mix: the tensors are on different devices.");
  const CudaScope scope(sources_in);
  const Tensor sources = torch::stable::contiguous(sources_in), rirs = torch::stable::contiguous(rirs_in);
  const Tensor gains = torch::stable::contiguous(gains_in);
  const std::optional<Tensor> background =
      background_in ? std::optional<Tensor>(torch::stable::contiguous(*background_in)) : std::nullopt;
  const int64_t B = sources.size(0), S = sources.size(1), N = sources.size(2);
  Tensor images = torch::stable::new_empty(sources, {B, S, N});
  Tensor mixture = torch::stable::new_empty(sources, {B, N});
  if (mixture.numel() == 0) return {images, mixture};

  const auto run = [&]<typename T>(TypeTag<T>) {
    ReverbParams<T> p{};
    p.sources = sources.const_data_ptr<T>();
    p.rirs = rirs.const_data_ptr<T>();
    p.gains = gains.const_data_ptr<T>();
    p.background = background ? background->const_data_ptr<T>() : nullptr;
    p.images = images.mutable_data_ptr<T>();
    p.mixture = mixture.mutable_data_ptr<T>();
    p.B = B;
    p.S = S;
    p.N = N;
    p.rir_stride = rirs.size(2);
    p.L = std::min(p.rir_stride, N);
    if (S > 0) convolve(p, sources, scope.stream);
    mixture_kernel<T><<<block_count(B * N, kThreads * 4), kThreads, 0, scope.stream>>>(p);
    check_launch("reverb_mix");
  };
  switch (sources.scalar_type()) {
    case ScalarType::Float:
      run(TypeTag<float>{});
      break;
    case ScalarType::Double:
      run(TypeTag<double>{});
      break;
    default:
      fail("reverb_mix: got other tensors than float32 or float64, the types of these kernels.");
  }
  return {images, mixture};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(task_aware, CUDA, m) { m.impl("reverb_mix", TORCH_BOX(&reverb_mix_cuda)); }

}  // namespace task_aware
