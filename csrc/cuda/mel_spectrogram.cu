// mel_spectrogram: mel[c,f,t] = sum over k of bank[f,k] |X[c,t,k]|                    waveform [C,N] -> mel
// [C,F,T]
//   X[c,t,k] = sum over n of window[n] waveform[c, reflect(t hop + n - n_fft/2)] exp(-2 pi i n k / n_fft)
//   T = N / hop + 1; bank [F,K] is zero outside the bins bands[f,0] .. bands[f,1]-1; K = n_fft/2 + 1
//
// Mapping: one block per frame. Its even samples are the real and its odd samples the imaginary part of a
// complex FFT of n_fft/2 in shared memory, untangled with twiddles[k] = exp(-2 pi i k / n_fft); then one
// thread per mel band. An n_fft that is no power of 2 is transformed by the definition, n_fft operations for
// each bin. Traffic: the waveform n_fft/hop times, nearly all of it from the L2 cache; the mel once.

#include <torch/csrc/stable/library.h>

#include <limits>

#include "common/block_fft.h"
#include "common/cuda.h"

namespace task_aware {
namespace {

constexpr int kThreads = 128;
constexpr size_t kSharedWithoutAsking = 48 * 1024;
constexpr size_t kSharedLimit = 99 * 1024;  // of every architecture since sm_80

template <typename T>
struct FrameParams {
  const T* waveform;           // [C,N]
  const T* window;             // [n_fft]
  const Complex<T>* twiddles;  // [n_fft]
  const T* bank;               // [F,K]
  const int* bands;            // [F,2]
  T* mel;                      // [C,F,frames]
  int64_t N, frames, hop;
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
  extern __shared__ __align__(16) unsigned char shared[];
  const int half = p.n_fft / 2;
  auto* packed = reinterpret_cast<Complex<T>*>(shared);
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

  if constexpr (kPowerOfTwo) block_fft_forward(packed, p.twiddles, 2, half, threadIdx.x, kThreads);
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
void launch(const FrameParams<T>& params, int64_t clips, cudaStream_t stream) {
  const int half = params.n_fft / 2;
  const size_t shared = half * sizeof(Complex<T>) + (half + 1) * sizeof(T);
  TASK_AWARE_CHECK(
      shared <= kSharedLimit, "mel_spectrogram: n_fft is ", params.n_fft,
      ", more than a CUDA block can hold (16384 in float32, 8192 in float64); use backend='reference'.");
  TASK_AWARE_CHECK(clips * params.frames <= std::numeric_limits<int>::max(),
                   "mel_spectrogram: there are too many frames for one launch; pass fewer clips.");
  const auto kernel =
      (half & (half - 1)) == 0 ? mel_spectrogram_kernel<T, true> : mel_spectrogram_kernel<T, false>;
  if (shared > kSharedWithoutAsking) {
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared));
  }
  kernel<<<static_cast<unsigned int>(clips * params.frames), kThreads, shared, stream>>>(params);
  check_launch("mel_spectrogram");
}

Tensor mel_spectrogram_cuda(const Tensor& waveform_in, const Tensor& window_in, const Tensor& twiddles_in,
                            const Tensor& bank_in, const Tensor& bands_in, int64_t hop) {
  const int64_t n_fft = window_in.size(0), F = bank_in.size(0);
  TASK_AWARE_CHECK(
      waveform_in.dim() == 2 && waveform_in.size(1) > n_fft / 2 && n_fft % 2 == 0 && hop >= 1,
      "mel_spectrogram: the waveform must be [C,N] with N above n_fft/2, n_fft even and hop positive.");
  TASK_AWARE_CHECK(
      twiddles_in.numel() == 2 * n_fft && bank_in.size(1) == n_fft / 2 + 1 && bands_in.numel() == 2 * F,
      "mel_spectrogram: the tables do not fit each other.");
  TASK_AWARE_CHECK(bands_in.scalar_type() == ScalarType::Int, "mel_spectrogram: bands must be int32.");
  for (const Tensor* table : {&window_in, &twiddles_in, &bank_in, &bands_in}) {
    TASK_AWARE_CHECK(same_device(waveform_in, *table),
                     "mel_spectrogram: the tensors are on different devices.");
  }
  const CudaScope scope(waveform_in);
  const Tensor waveform = torch::stable::contiguous(waveform_in),
               window = torch::stable::contiguous(window_in);
  const Tensor twiddles = torch::stable::contiguous(twiddles_in), bank = torch::stable::contiguous(bank_in);
  const Tensor bands = torch::stable::contiguous(bands_in);
  const int64_t clips = waveform.size(0), N = waveform.size(1), frames = N / hop + 1;
  Tensor mel = torch::stable::new_empty(waveform, {clips, F, frames});
  if (mel.numel() == 0) return mel;

  const auto run = [&]<typename T>(TypeTag<T>) {
    launch(FrameParams<T>{waveform.const_data_ptr<T>(), window.const_data_ptr<T>(),
                          reinterpret_cast<const Complex<T>*>(twiddles.const_data_ptr<T>()),
                          bank.const_data_ptr<T>(), bands.const_data_ptr<int>(), mel.mutable_data_ptr<T>(), N,
                          frames, hop, static_cast<int>(n_fft), static_cast<int>(F)},
           clips, scope.stream);
  };
  switch (waveform.scalar_type()) {
    case ScalarType::Float:
      run(TypeTag<float>{});
      break;
    case ScalarType::Double:
      run(TypeTag<double>{});
      break;
    default:
      fail("mel_spectrogram: got another tensor than float32 or float64, the types of these kernels.");
  }
  return mel;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(task_aware, CUDA, m) {
  m.impl("mel_spectrogram", TORCH_BOX(&mel_spectrogram_cuda));
}

}  // namespace task_aware
