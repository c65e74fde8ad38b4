#pragma once

// The checks of the operators' arguments, for their CPU and their CUDA side.

#include <optional>
#include <vector>

#include "common/assignment.h"
#include "common/pit_cost.h"
#include "common/tensor.h"

namespace task_aware {

inline void check_pit_loss_arguments(const Tensor& estimates, const Tensor& targets,
                                     const std::optional<Tensor>& mask, const std::optional<Tensor>& allowed,
                                     int64_t kind) {
  TASK_AWARE_CHECK(estimates.dim() >= 2 && same_shape(estimates, targets),
                   "pit_loss: estimates and targets must both be [B,S,*] of one shape.");
  TASK_AWARE_CHECK(estimates.scalar_type() == targets.scalar_type() && same_device(estimates, targets),
                   "pit_loss: estimates and targets must be of one dtype and on one device.");
  const int64_t S = estimates.size(1);
  TASK_AWARE_CHECK(S >= 1 && S <= kMaxSources, "pit_loss: got S = ", S, ", expected 1 to ", kMaxSources, ".");
  TASK_AWARE_CHECK(estimates.size(0) == 0 || estimates.numel() > 0,
                   "pit_loss: the sources have no elements.");
  TASK_AWARE_CHECK(kind >= 0 && kind < kPitKinds, "pit_loss: unknown kind ", kind, ".");
  if (mask.has_value()) {
    TASK_AWARE_CHECK(mask->dim() == 2 && mask->size(0) == estimates.size(0) && mask->size(1) == S &&
                         mask->scalar_type() == ScalarType::Bool && same_device(estimates, *mask),
                     "pit_loss: mask must be a bool [B,S] beside the estimates.");
  }
  if (allowed.has_value()) {
    TASK_AWARE_CHECK(allowed->dim() == 3 && allowed->size(0) == estimates.size(0) && allowed->size(1) == S &&
                         allowed->size(2) == S && allowed->scalar_type() == ScalarType::Bool &&
                         same_device(estimates, *allowed),
                     "pit_loss: allowed must be a bool [B,S,S] beside the estimates.");
  }
}

/// What the forward leaves to the backward: the slopes [B,S,kSlopes] of a ratio, nothing otherwise.
inline Tensor new_pit_loss_slopes(const Tensor& estimates, int64_t kind) {
  const int64_t S = is_ratio(static_cast<PitKind>(kind)) ? estimates.size(1) : 0;
  return torch::stable::new_empty(estimates, {estimates.size(0), S, kSlopes}, ScalarType::Double);
}

/// Their memory, null if there are none.
inline Slopes* slopes_to_write(Tensor& slopes) {
  return slopes.numel() == 0 ? nullptr : reinterpret_cast<Slopes*>(slopes.mutable_data_ptr<double>());
}
inline const Slopes* slopes_to_read(const Tensor& slopes) {
  return slopes.numel() == 0 ? nullptr : reinterpret_cast<const Slopes*>(slopes.const_data_ptr<double>());
}

/// The loss is kept in float64 for float64 data, otherwise in float32.
inline ScalarType pit_loss_type(const Tensor& estimates) {
  return estimates.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline void check_reorder_arguments(const Tensor& source, const Tensor& permutation) {
  TASK_AWARE_CHECK(source.dim() >= 2 && permutation.dim() == 2 && source.size(0) == permutation.size(0) &&
                       source.size(1) == permutation.size(1),
                   "reorder: the permutation must be [B,S] of the estimates' B and S.");
  TASK_AWARE_CHECK(permutation.scalar_type() == ScalarType::Long, "reorder: the permutation must be int64.");
  TASK_AWARE_CHECK(same_device(source, permutation), "reorder: the tensors are on different devices.");
}

inline void check_mel_mask_arguments(const Tensor& logits, const Tensor& mel, const Tensor& std) {
  TASK_AWARE_CHECK(logits.dim() == 4 && mel.dim() == 3 && logits.size(0) == mel.size(0) &&
                       logits.size(2) == mel.size(1) && logits.size(3) == mel.size(2),
                   "mel_mask: mel must be [B,F,T] of the logits' [B,S,F,T].");
  TASK_AWARE_CHECK(std.dim() == 1 && std.size(0) == logits.size(2), "mel_mask: mean and std must be [F].");
  TASK_AWARE_CHECK(logits.scalar_type() == mel.scalar_type(),
                   "mel_mask: logits and mel must be of one dtype.");
  TASK_AWARE_CHECK(same_device(logits, mel) && same_device(logits, std),
                   "mel_mask: the tensors are on different devices.");
}

/// A gradient that may be absent, contiguous.
inline std::optional<Tensor> mel_mask_gradient(const std::optional<Tensor>& gradient, const Tensor& logits) {
  TASK_AWARE_CHECK(!gradient || same_shape(*gradient, logits), "mel_mask: the gradients must be [B,S,F,T].");
  return contiguous_if_given(gradient);
}

constexpr int64_t kMostFramesPooled = 32;

inline void check_glu_pool_arguments(const Tensor& x, const Tensor& weight, const Tensor& bias, int64_t mel,
                                     int64_t time) {
  TASK_AWARE_CHECK(x.dim() == 4 && weight.dim() == 2 && bias.dim() == 1 && weight.size(0) == x.size(1) &&
                       weight.size(1) == x.size(1) && bias.size(0) == x.size(1),
                   "glu_pool: weight must be [C,C] and bias [C] of x's [B,C,F,T].");
  TASK_AWARE_CHECK(mel >= 1 && time >= 1 && time <= kMostFramesPooled,
                   "glu_pool: pools of at least 1, and of at most ", kMostFramesPooled,
                   " frames, are wanted.");
  const ScalarType type = x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  TASK_AWARE_CHECK(weight.scalar_type() == type && bias.scalar_type() == type,
                   "glu_pool: weight and bias must be of the type of sums.");
  TASK_AWARE_CHECK(same_device(x, weight) && same_device(x, bias),
                   "glu_pool: the tensors are on different devices.");
}

inline void check_conv_glu_pool_arguments(const Tensor& features, const Tensor& kernel, const Tensor& shift,
                                          const Tensor& weight, const Tensor& bias, int64_t mel,
                                          int64_t time) {
  const int64_t C = weight.size(0);
  TASK_AWARE_CHECK(
      features.dim() == 3 && kernel.dim() == 3 && kernel.size(0) == C && kernel.size(1) == 3 &&
          kernel.size(2) == 3 && shift.dim() == 1 && shift.size(0) == C && weight.dim() == 2 &&
          weight.size(1) == C && bias.dim() == 1 && bias.size(0) == C,
      "conv_glu_pool: features must be [B,F,T], kernel [C,3,3], weight [C,C], shift and bias [C].");
  TASK_AWARE_CHECK(mel >= 1 && time >= 1 && time <= kMostFramesPooled,
                   "conv_glu_pool: pools of at least 1, and of at most ", kMostFramesPooled,
                   " frames, are wanted.");
  const ScalarType type =
      features.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  for (const Tensor* tensor : {&kernel, &shift, &weight, &bias}) {
    TASK_AWARE_CHECK(tensor->scalar_type() == type,
                     "conv_glu_pool: the weights must be of the type of sums.");
    TASK_AWARE_CHECK(same_device(features, *tensor), "conv_glu_pool: the tensors are on different devices.");
  }
}

inline void check_depthwise_prelu_arguments(const Tensor& x, const Tensor& weight, const Tensor& bias,
                                            const Tensor& slope, int64_t dilation) {
  TASK_AWARE_CHECK(
      x.dim() == 3 && weight.dim() == 2 && weight.size(0) == x.size(1) && weight.size(1) == 3 &&
          bias.dim() == 1 && bias.size(0) == x.size(1) && slope.numel() == 1 && dilation >= 1,
      "depthwise_prelu: weight must be [C,3], bias [C] and slope [1] of x's [B,C,T], the dilation "
      "at least 1.");
  const ScalarType type = x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  for (const Tensor* tensor : {&weight, &bias, &slope}) {
    TASK_AWARE_CHECK(tensor->scalar_type() == type,
                     "depthwise_prelu: the weights must be of the type of sums.");
    TASK_AWARE_CHECK(same_device(x, *tensor), "depthwise_prelu: the tensors are on different devices.");
  }
}

/// `weights` in the order of the schema.
inline void check_conv_block_arguments(const Tensor& x, const Tensor& total,
                                       const std::vector<Tensor>& weights, int64_t dilation) {
  TASK_AWARE_CHECK(
      x.dim() == 3 && total.dim() == 3 && total.size(0) == x.size(0) && total.size(2) == x.size(2) &&
          weights[0].dim() == 2 && weights[12].dim() == 2 && dilation >= 1,
      "conv_block: x must be [B,C,T], total [B,S,T], the matrices [H,C] and [S,H], the dilation at least 1.");
  const int64_t C = x.size(1), S = total.size(1), H = weights[0].size(0);
  const std::vector<std::vector<int64_t>> shapes = {{H, C}, {H}, {1}, {H},    {H}, {H, 3}, {H},
                                                    {1},    {H}, {H}, {C, H}, {C}, {S, H}, {S}};
  const ScalarType type = x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  TASK_AWARE_CHECK(total.scalar_type() == x.scalar_type(), "conv_block: x and total must be of one dtype.");
  for (size_t k = 0; k < shapes.size(); ++k) {
    TASK_AWARE_CHECK(weights[k].sizes().equals(shapes[k]), "conv_block: weight ", k, " has the wrong shape.");
    TASK_AWARE_CHECK(weights[k].scalar_type() == type,
                     "conv_block: the weights must be of the type of sums.");
    TASK_AWARE_CHECK(same_device(x, weights[k]), "conv_block: the tensors are on different devices.");
  }
}

inline void check_gru_scan_arguments(const Tensor& gates, const Tensor& weight, const Tensor& bias) {
  TASK_AWARE_CHECK(
      gates.dim() == 4 && weight.dim() == 3 && bias.dim() == 2 && gates.size(2) <= 2 &&
          weight.size(0) == gates.size(2) && bias.size(0) == gates.size(2) &&
          weight.size(1) == gates.size(3) && bias.size(1) == gates.size(3) &&
          gates.size(3) == 3 * weight.size(2),
      "gru_scan: weight must be [D,3H,H] and bias [D,3H] of the gates' [B,T,D,3H], D at most 2.");
  const ScalarType type = gates.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  TASK_AWARE_CHECK(weight.scalar_type() == type && bias.scalar_type() == type,
                   "gru_scan: weight and bias must be of the type of sums.");
  TASK_AWARE_CHECK(same_device(gates, weight) && same_device(gates, bias),
                   "gru_scan: the tensors are on different devices.");
}

inline void check_reverb_mix_arguments(const Tensor& sources, const Tensor& rirs, const Tensor& gains,
                                       const std::optional<Tensor>& background) {
  TASK_AWARE_CHECK(sources.dim() == 3 && rirs.dim() == 3 && gains.dim() == 2 &&
                       sources.size(0) == rirs.size(0) && sources.size(1) == rirs.size(1) &&
                       sources.size(0) == gains.size(0) && sources.size(1) == gains.size(1),
                   "reverb_mix: rirs must be [B,S,L] and gains [B,S] of the sources' B and S.");
  TASK_AWARE_CHECK(rirs.size(2) >= 1, "reverb_mix: rirs must hold at least one sample.");
  TASK_AWARE_CHECK(!background || (background->dim() == 2 && background->size(0) == sources.size(0) &&
                                   background->size(1) == sources.size(2)),
                   "reverb_mix: background must be [B,N].");
  TASK_AWARE_CHECK(same_device(sources, rirs) && same_device(sources, gains) &&
                       (!background || same_device(sources, *background)),
                   "reverb_mix: the tensors are on different devices.");
}

inline void check_mel_spectrogram_arguments(const Tensor& waveform, const Tensor& window,
                                            const Tensor& twiddles, const Tensor& weights,
                                            const Tensor& bands, int64_t hop, ScalarType tables) {
  const int64_t n_fft = window.size(0);
  TASK_AWARE_CHECK(
      waveform.dim() == 2 && waveform.size(1) > n_fft / 2 && n_fft % 2 == 0 && hop >= 1,
      "mel_spectrogram: the waveform must be [C,N] with N above n_fft/2, n_fft even and hop positive.");
  TASK_AWARE_CHECK(
      twiddles.numel() == 2 * n_fft && weights.dim() == 1 && bands.dim() == 2 && bands.size(1) == 3,
      "mel_spectrogram: twiddles must be [n_fft,2], weights [W] and bands [F,3].");
  TASK_AWARE_CHECK(bands.scalar_type() == ScalarType::Int, "mel_spectrogram: bands must be int32.");
  TASK_AWARE_CHECK(
      window.scalar_type() == tables && twiddles.scalar_type() == tables && weights.scalar_type() == tables,
      "mel_spectrogram: the tables must be float64 on the CPU and of the waveform's dtype on a GPU.");
  for (const Tensor* table : {&window, &twiddles, &weights, &bands}) {
    TASK_AWARE_CHECK(same_device(waveform, *table), "mel_spectrogram: the tensors are on different devices.");
  }
}

inline void check_mask_resynthesis_tables(const Tensor& waveform, const Tensor& window, const Tensor& weights,
                                          const Tensor& bands, const Tensor& cells, int64_t hop) {
  const int64_t n_fft = window.numel();
  TASK_AWARE_CHECK(
      waveform.dim() == 2 && window.dim() == 1 && n_fft >= 2 && n_fft % 2 == 0 &&
          waveform.size(1) > n_fft / 2 && hop >= 1 && hop <= n_fft,
      "mask_resynthesis: the waveform must be [B,N] with N above n_fft/2, n_fft even and the hop "
      "between 1 and n_fft.");
  TASK_AWARE_CHECK(weights.dim() == 2 && weights.size(0) == 2 && weights.size(1) == n_fft / 2 + 1 &&
                       bands.dim() == 1 && bands.size(0) == n_fft / 2 + 1 && cells.dim() == 1 &&
                       cells.size(0) >= 2 && bands.scalar_type() == ScalarType::Int &&
                       cells.scalar_type() == ScalarType::Int,
                   "mask_resynthesis: weights must be [2,n_fft/2+1], bands an int32 [n_fft/2+1] and cells an "
                   "int32 [F+1].");
  TASK_AWARE_CHECK(
      window.scalar_type() == waveform.scalar_type() && weights.scalar_type() == waveform.scalar_type(),
      "mask_resynthesis: the tables must be of the waveform's dtype.");
  for (const Tensor* table : {&window, &weights, &bands, &cells}) {
    TASK_AWARE_CHECK(same_device(waveform, *table),
                     "mask_resynthesis: the tensors are on different devices.");
  }
}

inline void check_mask_resynthesis_arguments(const Tensor& waveform, const Tensor& masks,
                                             const Tensor& window, const Tensor& weights, const Tensor& bands,
                                             const Tensor& cells, int64_t hop) {
  check_mask_resynthesis_tables(waveform, window, weights, bands, cells, hop);
  TASK_AWARE_CHECK(masks.dim() == 4 && masks.size(0) == waveform.size(0) &&
                       masks.size(2) == cells.size(0) - 1 && masks.size(3) == waveform.size(1) / hop + 1 &&
                       masks.scalar_type() == waveform.scalar_type() && same_device(waveform, masks),
                   "mask_resynthesis: masks must be [B,S,F,N/hop+1] beside the waveform and of its dtype.");
}

inline void check_mask_resynthesis_gradient(const Tensor& grad, const Tensor& waveform) {
  TASK_AWARE_CHECK(grad.dim() == 3 && grad.size(0) == waveform.size(0) && grad.size(2) == waveform.size(1) &&
                       grad.scalar_type() == waveform.scalar_type() && same_device(waveform, grad),
                   "mask_resynthesis: the gradient must be [B,S,N] beside the waveform and of its dtype.");
}

}  // namespace task_aware
