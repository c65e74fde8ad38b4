// mel_spectrogram on tensors; mel_spectrogram.cuh holds the kernel.

#include <torch/csrc/stable/library.h>

#include <optional>

#include "common/arguments.h"
#include "common/dispatch.h"
#include "cuda/mel_spectrogram.cuh"
#include "cuda/roots.h"
#include "cuda/scope.h"

namespace task_aware {
namespace {

Tensor mel_spectrogram_cuda(const Tensor& waveform_in, const Tensor& window_in, const Tensor& twiddles_in,
                            const std::optional<Tensor>& roots, const Tensor& weights_in,
                            const Tensor& bands_in, int64_t hop) {
  check_mel_spectrogram_arguments(waveform_in, window_in, twiddles_in, weights_in, bands_in, hop,
                                  waveform_in.scalar_type());
  const CudaScope scope(waveform_in);
  const Tensor waveform = torch::stable::contiguous(waveform_in);
  const Tensor window = torch::stable::contiguous(window_in),
               twiddles = torch::stable::contiguous(twiddles_in);
  const Tensor weights = torch::stable::contiguous(weights_in), bands = torch::stable::contiguous(bands_in);
  const int64_t n_fft = window.size(0), F = bands.size(0);
  const int64_t clips = waveform.size(0), N = waveform.size(1), frames = N / hop + 1;
  Tensor mel = torch::stable::new_empty(waveform, {clips, F, frames});
  if (mel.numel() == 0) return mel;

  dispatch_real(waveform.scalar_type(), "mel_spectrogram", [&]<typename T>(TypeTag<T>) {
    const FrameParams<T> params{
        waveform.const_data_ptr<T>(),
        window.const_data_ptr<T>(),
        reinterpret_cast<const Complex<T>*>(twiddles.const_data_ptr<T>()),
        roots ? fft_roots<T>(roots, waveform, count_of_roots<T>(n_fft), "mel_spectrogram") : nullptr,
        weights.const_data_ptr<T>(),
        bands.const_data_ptr<int>(),
        mel.mutable_data_ptr<T>(),
        clips,
        N,
        frames,
        hop,
        static_cast<int>(n_fft),
        static_cast<int>(F)};
    launch_mel_spectrogram(params, scope.shared_bytes_of_a_block(), scope.stream);
  });
  return mel;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(task_aware, CUDA, m) {
  m.impl("mel_spectrogram", TORCH_BOX(&mel_spectrogram_cuda));
}

}  // namespace task_aware
