// mask_resynthesis: sources[b,s] = istft(bins[b,s] X[b]), X = stft(waveform), of frames of n_fft samples
//   bins[b,s,k,t] = weights[0,k] masks[b,s,f,t] + weights[1,k] masks[b,s,f+1,t], cells[f] <= k < cells[f+1]
//   waveform [B,N], masks [B,S,F,T], window [n_fft], weights [2,n_fft/2+1], cells [F+1] -> sources [B,S,N]
//   X[b,t,k] = sum over m of window[m] waveform[b, reflect(t hop + m - n_fft/2)] exp(-2 pi i m k / n_fft)
//   sources[b,s,n] = sum over t of window[m] irfft(bins X)[m] / sum over t of window[m]^2,
//   m = n + n_fft/2 - t hop
// mask_resynthesis_backward, the adjoint: with G the transform of frames of gradient / sum of window^2,
//   grad_bins[b,s,k,t] = c Re(X conj G) / n_fft, c = 1 for k = 0 and n_fft/2, otherwise 2; then sums over k
//
// Two frames t, t+1 are the real and the imaginary part of one complex transform Z of n_fft values. With P[k]
// = Z[k] and Q[k] = conj Z[n_fft - k], the bins of t are (P + Q) / 2 and those of t+1, times i, are (P - Q) /
// 2. Masked by a for t and by b for t+1 they are the transform a (P + Q) / 2 + b (P - Q) / 2 of both, which
// goes back as it is: S + 1 transforms for two frames. They stay in the L1 and L2 caches from samples to
// samples.
// Threads share the pairs of frames of all clips. One writes the samples from its first frame up to that of
// the next thread, so that each sample is added up in the order of the frames whatever the threads, and
// repeats the few pairs before its first that reach into them.
// Traffic: waveform and masks read once, sources written once; their samples stay in the L2 cache while
// frames are added. The backward reads the gradient n_fft/hop times, from the caches, and writes the masks'
// once.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <optional>

#include "common/arguments.h"
#include "common/dispatch.h"
#include "common/parallel.h"
#include "cpu/mask_resynthesis_frames.h"
#include "cpu/pages.h"

namespace task_aware {
namespace {

/// The sources' samples from pair `first` of a clip's frames up to pair `last`.
template <typename T>
void resynthesise(const Tables<T>& tables, PairTransforms<T>& transforms, const T* clip, const T* masks,
                  int64_t S, int64_t first, int64_t last, T* sources) {
  const FrameGrid& grid = tables.grid;
  const int64_t begin = grid.first_sample(first), end = grid.first_sample(last);
  for (int64_t s = 0; s < S; ++s) std::fill(sources + s * grid.N + begin, sources + s * grid.N + end, T(0));
  for (int64_t pair = grid.first_pair_at(begin); pair < last; ++pair) {
    transforms.analyse(2 * pair, {clip, nullptr, true}, transforms.mixture);
    for (int64_t s = 0; s < S; ++s) {
      transforms.add_masked(2 * pair, masks + s * tables.F * grid.frames, sources + s * grid.N, begin, end);
    }
  }
  for (int64_t s = 0; s < S; ++s) {
    for (int64_t n = begin; n < end; ++n) sources[s * grid.N + n] *= tables.inverse_envelope[n];
  }
}

Tensor mask_resynthesis_cpu(const Tensor& waveform_in, const Tensor& masks_in, const Tensor& window_in,
                            const Tensor& weights_in, const Tensor& bands, const Tensor& cells_in,
                            const std::optional<Tensor>&, int64_t hop) {
  check_mask_resynthesis_arguments(waveform_in, masks_in, window_in, weights_in, bands, cells_in, hop);
  const Tensor waveform = torch::stable::contiguous(waveform_in), masks = torch::stable::contiguous(masks_in);
  const Tensor window = torch::stable::contiguous(window_in), weights = torch::stable::contiguous(weights_in);
  const Tensor cells = torch::stable::contiguous(cells_in);
  const int64_t B = masks.size(0), S = masks.size(1), N = waveform.size(1);
  Tensor sources = new_output(waveform, {B, S, N});
  if (sources.numel() == 0) return sources;

  dispatch_real(waveform.scalar_type(), "mask_resynthesis", [&]<typename T>(TypeTag<T>) {
    const Tables<T> tables(waveform, window, weights, cells, hop);
    const int64_t pairs = tables.grid.pairs(), row = tables.F * tables.grid.frames;
    // A thread repeats pairs; so that this costs little, it has many more of its own.
    const int64_t grain =
        std::max(grain_for(2 * S * tables.grid.n_fft), 8 * (tables.grid.n_fft / (2 * hop) + 1));
    parallel_for(0, B * pairs, grain, [&](int64_t begin, int64_t end) {
      PairTransforms<T> transforms(tables);
      for (int64_t at = begin; at < end;) {
        const int64_t b = at / pairs, first = at % pairs, last = std::min(pairs, first + end - at);
        resynthesise(tables, transforms, waveform.const_data_ptr<T>() + b * N,
                     masks.const_data_ptr<T>() + b * S * row, S, first, last,
                     sources.mutable_data_ptr<T>() + b * S * N);
        at += last - first;
      }
    });
  });
  return sources;
}

Tensor mask_resynthesis_backward_cpu(const Tensor& grad_in, const Tensor& waveform_in,
                                     const Tensor& window_in, const Tensor& weights_in, const Tensor& bands,
                                     const Tensor& cells_in, const std::optional<Tensor>&, int64_t hop) {
  check_mask_resynthesis_tables(waveform_in, window_in, weights_in, bands, cells_in, hop);
  check_mask_resynthesis_gradient(grad_in, waveform_in);
  const Tensor grad = torch::stable::contiguous(grad_in), waveform = torch::stable::contiguous(waveform_in);
  const Tensor window = torch::stable::contiguous(window_in), weights = torch::stable::contiguous(weights_in);
  const Tensor cells = torch::stable::contiguous(cells_in);
  const int64_t B = grad.size(0), S = grad.size(1), N = grad.size(2), F = cells.size(0) - 1,
                frames = N / hop + 1;
  Tensor grad_masks = new_output(grad, {B, S, F, frames});
  if (grad_masks.numel() == 0) return grad_masks;

  dispatch_real(grad.scalar_type(), "mask_resynthesis", [&]<typename T>(TypeTag<T>) {
    const Tables<T> tables(waveform, window, weights, cells, hop);
    const int64_t pairs = tables.grid.pairs();
    parallel_for(0, B * pairs, grain_for(2 * S * tables.grid.n_fft), [&](int64_t begin, int64_t end) {
      PairTransforms<T> transforms(tables);
      for (int64_t at = begin; at < end; ++at) {
        const int64_t b = at / pairs, t = at % pairs * 2;
        transforms.analyse(t, {waveform.const_data_ptr<T>() + b * N, nullptr, true}, transforms.mixture);
        for (int64_t row = b * S; row < (b + 1) * S; ++row) {
          transforms.analyse(t, {grad.const_data_ptr<T>() + row * N, tables.inverse_envelope.data(), false},
                             transforms.gradient);
          transforms.write_gradient(t, grad_masks.mutable_data_ptr<T>() + row * F * frames);
        }
      }
    });
  });
  return grad_masks;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(task_aware, m) {
  // `bands`, the band f of each bin, and `roots` are what the CUDA kernels look up.
  m.def(
      "mask_resynthesis(Tensor waveform, Tensor masks, Tensor window, Tensor weights, Tensor bands, "
      "Tensor cells, Tensor? roots, int hop) -> Tensor");
  m.def(
      "mask_resynthesis_backward(Tensor grad, Tensor waveform, Tensor window, Tensor weights, Tensor bands, "
      "Tensor cells, Tensor? roots, int hop) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(task_aware, CPU, m) {
  m.impl("mask_resynthesis", TORCH_BOX(&mask_resynthesis_cpu));
  m.impl("mask_resynthesis_backward", TORCH_BOX(&mask_resynthesis_backward_cpu));
}

}  // namespace task_aware
