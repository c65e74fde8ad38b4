// mask_resynthesis on tensors; mask_resynthesis.cuh holds the kernels.

#include <torch/csrc/stable/library.h>

#include <optional>

#include "common/arguments.h"
#include "common/dispatch.h"
#include "cuda/mask_resynthesis.cuh"
#include "cuda/roots.h"
#include "cuda/scope.h"

namespace task_aware {
namespace {

/// What both directions read, contiguous.
struct ResynthesisInputs {
  Tensor waveform, window, weights, bands, cells;
  const std::optional<Tensor>& roots;
  int64_t hop;

  /// launch(params) fills in the rest and launches the kernels with a workspace that is freed behind them.
  template <typename Launch>
  void with_params(Launch launch) const {
    const FrameGrid grid = FrameGrid::of(waveform.size(1), window.size(0), hop);
    const int64_t B = waveform.size(0);
    const Tensor spectra = torch::stable::new_empty(waveform, {B, grid.pairs(), grid.n_fft, 2});
    const Tensor inverse_envelope = torch::stable::new_empty(waveform, {grid.N});
    dispatch_real(waveform.scalar_type(), "mask_resynthesis", [&]<typename T>(TypeTag<T>) {
      ResynthesisParams<T> p{};
      p.waveform = waveform.const_data_ptr<T>();
      p.window = window.const_data_ptr<T>();
      p.weights = weights.const_data_ptr<T>();
      p.bands = bands.const_data_ptr<int>();
      p.cells = cells.const_data_ptr<int>();
      p.roots = fft_roots<T>(roots, waveform, count_of_resynthesis_roots<T>(grid.n_fft), "mask_resynthesis");
      p.B = B;
      p.F = static_cast<int>(cells.size(0) - 1);
      p.grid = grid;
      p.spectra = reinterpret_cast<Complex<T>*>(spectra.mutable_data_ptr<T>());
      p.inverse_envelope = inverse_envelope.mutable_data_ptr<T>();
      launch(p);
    });
  }
};

ResynthesisInputs contiguous_inputs(const Tensor& waveform, const Tensor& window, const Tensor& weights,
                                    const Tensor& bands, const Tensor& cells,
                                    const std::optional<Tensor>& roots, int64_t hop) {
  using torch::stable::contiguous;
  return {contiguous(waveform),
          contiguous(window),
          contiguous(weights),
          contiguous(bands),
          contiguous(cells),
          roots,
          hop};
}

Tensor mask_resynthesis_cuda(const Tensor& waveform, const Tensor& masks_in, const Tensor& window,
                             const Tensor& weights, const Tensor& bands, const Tensor& cells,
                             const std::optional<Tensor>& roots, int64_t hop) {
  check_mask_resynthesis_arguments(waveform, masks_in, window, weights, bands, cells, hop);
  const CudaScope scope(waveform);
  const ResynthesisInputs inputs = contiguous_inputs(waveform, window, weights, bands, cells, roots, hop);
  const Tensor masks = torch::stable::contiguous(masks_in);
  Tensor sources = torch::stable::new_empty(waveform, {masks.size(0), masks.size(1), waveform.size(1)});
  if (sources.numel() == 0) return sources;

  inputs.with_params([&]<typename T>(ResynthesisParams<T> p) {
    p.S = masks.size(1);
    p.masks = masks.const_data_ptr<T>();
    p.sources = sources.mutable_data_ptr<T>();
    launch_mask_resynthesis(p, scope.shared_bytes_of_a_block(), scope.stream);
  });
  return sources;
}

Tensor mask_resynthesis_backward_cuda(const Tensor& grad_in, const Tensor& waveform, const Tensor& window,
                                      const Tensor& weights, const Tensor& bands, const Tensor& cells,
                                      const std::optional<Tensor>& roots, int64_t hop) {
  check_mask_resynthesis_tables(waveform, window, weights, bands, cells, hop);
  check_mask_resynthesis_gradient(grad_in, waveform);
  const CudaScope scope(waveform);
  const ResynthesisInputs inputs = contiguous_inputs(waveform, window, weights, bands, cells, roots, hop);
  const Tensor grad = torch::stable::contiguous(grad_in);
  const int64_t S = grad.size(1), F = cells.size(0) - 1;
  Tensor grad_masks = torch::stable::new_empty(grad, {grad.size(0), S, F, grad.size(2) / hop + 1});
  if (grad_masks.numel() == 0) return grad_masks;

  inputs.with_params([&]<typename T>(ResynthesisParams<T> p) {
    p.S = S;
    p.grad = grad.const_data_ptr<T>();
    p.grad_masks = grad_masks.mutable_data_ptr<T>();
    launch_mask_resynthesis(p, scope.shared_bytes_of_a_block(), scope.stream);
  });
  return grad_masks;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(task_aware, CUDA, m) {
  m.impl("mask_resynthesis", TORCH_BOX(&mask_resynthesis_cuda));
  m.impl("mask_resynthesis_backward", TORCH_BOX(&mask_resynthesis_backward_cuda));
}

}  // namespace task_aware
