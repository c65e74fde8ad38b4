// reverb_mix on tensors; reverb_mix.cuh holds the kernels.

#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>

#include "common/arguments.h"
#include "common/dispatch.h"
#include "cuda/reverb_mix.cuh"
#include "cuda/roots.h"
#include "cuda/scope.h"

namespace task_aware {
namespace {

std::tuple<Tensor, Tensor> reverb_mix_cuda(const Tensor& sources_in, const Tensor& rirs_in,
                                           const Tensor& gains_in, const std::optional<Tensor>& background_in,
                                           const std::optional<Tensor>& roots, bool wants_images) {
  check_reverb_mix_arguments(sources_in, rirs_in, gains_in, background_in);
  const CudaScope scope(sources_in);
  const Tensor sources = torch::stable::contiguous(sources_in), rirs = torch::stable::contiguous(rirs_in);
  const Tensor gains = torch::stable::contiguous(gains_in);
  const std::optional<Tensor> background = contiguous_if_given(background_in);
  const int64_t B = sources.size(0), S = sources.size(1), N = sources.size(2);
  Tensor images = torch::stable::new_empty(sources, {B, S, wants_images ? N : 0});
  Tensor mixture = torch::stable::new_empty(sources, {B, N});
  if (mixture.numel() == 0) return {images, mixture};

  dispatch_real(sources.scalar_type(), "reverb_mix", [&]<typename T>(TypeTag<T>) {
    ReverbParams<T> p{};
    p.sources = sources.const_data_ptr<T>();
    p.rirs = rirs.const_data_ptr<T>();
    p.gains = gains.const_data_ptr<T>();
    p.background = background ? background->const_data_ptr<T>() : nullptr;
    p.images = wants_images ? images.mutable_data_ptr<T>() : nullptr;
    p.mixture = mixture.mutable_data_ptr<T>();
    p.B = B;
    p.S = S;
    p.N = N;
    p.rir_stride = rirs.size(2);
    p.roots = fft_roots<T>(roots, sources, count_of_roots<T>(), "reverb_mix");
    p.shared_bytes = scope.shared_bytes_of_a_block();
    // Freed for this stream alone when it goes out of scope, as torch frees every tensor.
    const Tensor workspace = torch::stable::new_empty(sources, {p.plan(), 2});
    launch_reverb_mix(p, reinterpret_cast<Complex<T>*>(workspace.mutable_data_ptr<T>()), scope.stream);
  });
  return {images, mixture};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(task_aware, CUDA, m) { m.impl("reverb_mix", TORCH_BOX(&reverb_mix_cuda)); }

}  // namespace task_aware
