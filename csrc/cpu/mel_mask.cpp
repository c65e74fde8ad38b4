// mel_mask: mask = floor + (1 - floor) sigmoid(logits), masked = mask * mel
//   features = (20 log10(max(masked, amin, threshold)) - mean) / std
//   maximum[b,s] = max(amin, masked) over F and T, kept for the backward
//   threshold[b,s] = maximum * 10^(-top_db / 20)
//   logits [B,S,F,T], mel [B,F,T], mean and std [F]
// backward: d = 20 / (ln 10 * std[f]) * grad_features
//   to_masked   = grad_masked + d / masked where masked is the largest of the three; and the elements at the
//                 maximum share the sum of d / maximum over the elements held at the threshold
//   grad_logits = to_masked * mel * (1 - floor) sigmoid (1 - sigmoid)
//   grad_mel    = sum over S of to_masked * mask
//
// Traffic: logits once, both outputs once; the second look at a (b,s) row finds it in the L2 cache. The
// backward reads its inputs twice and recomputes the mask. Threads share the (b,s) rows, then the (b,f) rows.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <tuple>
#include <type_traits>
#include <vector>

#include "common/arguments.h"
#include "common/dispatch.h"
#include "common/parallel.h"
#include "cpu/mel_mask_tiles.h"

namespace task_aware {
namespace {

struct Options {
  double floor;
  double amin;
  double ratio;  // 10^(-top_db / 20)
};

Options make_options(double floor, double amin, double top_db) {
  // Below the normal numbers of float32 there is no logarithm here.
  return {floor, std::max<double>(amin, std::numeric_limits<float>::min()), std::pow(10.0, -top_db / 20)};
}

/// `count` values in the compute type: the source itself, or its values converted into `buffer`.
template <typename T>
const accumulate_t<T>* read(const T* source, std::vector<accumulate_t<T>>& buffer, int64_t count) {
  if constexpr (std::is_same_v<T, accumulate_t<T>>) {
    return source;
  } else {
    std::copy(source, source + count, buffer.begin());
    return buffer.data();
  }
}

/// Where to compute `count` values that `write` brings to `target`.
template <typename T>
accumulate_t<T>* place(T* target, std::vector<accumulate_t<T>>& buffer) {
  if constexpr (std::is_same_v<T, accumulate_t<T>>) {
    return target;
  } else {
    return buffer.data();
  }
}

template <typename T>
void write(const accumulate_t<T>* values, T* target, int64_t count) {
  if constexpr (!std::is_same_v<T, accumulate_t<T>>) {
    for (int64_t i = 0; i < count; ++i) target[i] = static_cast<T>(values[i]);
  }
}

std::tuple<Tensor, Tensor, Tensor> mel_mask_cpu(const Tensor& logits_in, const Tensor& mel_in,
                                                const Tensor& mean_in, const Tensor& std_in, double floor,
                                                double amin, double top_db) {
  check_mel_mask_arguments(logits_in, mel_in, std_in);
  const Options options = make_options(floor, amin, top_db);
  const Tensor logits = torch::stable::contiguous(logits_in), mel = torch::stable::contiguous(mel_in);
  const Tensor mean = torch::stable::contiguous(mean_in), std = torch::stable::contiguous(std_in);
  const int64_t B = logits.size(0), S = logits.size(1), F = logits.size(2), frames = logits.size(3),
                row = F * frames;
  Tensor masked = torch::stable::new_empty(logits, logits.sizes());
  Tensor features = torch::stable::new_empty(logits, logits.sizes());
  Tensor maximum = torch::stable::new_empty(std, {B, S});

  dispatch_floating(logits.scalar_type(), "mel_mask", [&]<typename T>(TypeTag<T>) {
    using A = accumulate_t<T>;
    const A* means = mean.const_data_ptr<A>();
    const A* stds = std.const_data_ptr<A>();
    parallel_for(0, B * S, grain_for(row), [&](int64_t first, int64_t last) {
      std::vector<A> logit_buffer(frames), mel_buffer(frames), feature_buffer(frames);
      std::vector<A> row_buffer(std::is_same_v<T, A> ? 0 : row);
      for (int64_t index = first; index < last; ++index) {
        const T* row_logits = logits.const_data_ptr<T>() + index * row;
        const T* row_mel = mel.const_data_ptr<T>() + index / S * row;
        A* row_masked = place(masked.mutable_data_ptr<T>() + index * row, row_buffer);
        A largest = static_cast<A>(options.amin);
        for (int64_t f = 0; f < F; ++f) {
          const int64_t at = f * frames;
          mask_tile(
              MaskTile<A>{read(row_logits + at, logit_buffer, frames), read(row_mel + at, mel_buffer, frames),
                          static_cast<A>(options.floor), frames},
              row_masked + at);
          largest = largest_tile(row_masked + at, frames, largest);
        }
        maximum.mutable_data_ptr<A>()[index] = largest;
        const A least = larger(static_cast<A>(options.amin), largest * static_cast<A>(options.ratio));
        T* row_features = features.mutable_data_ptr<T>() + index * row;
        for (int64_t f = 0; f < F; ++f) {
          A* tile = place(row_features + f * frames, feature_buffer);
          if (std::isnan(largest)) {
            std::fill(tile, tile + frames, largest);
          } else {
            feature_tile(row_masked + f * frames, least, means[f], stds[f], tile, frames);
          }
          write(tile, row_features + f * frames, frames);
        }
        write(row_masked, masked.mutable_data_ptr<T>() + index * row, row);
      }
    });
  });
  return {masked, features, maximum};
}

/// The constants of every (b,s) row; those that need the gradient of the features look at each row once.
template <typename T, typename A = accumulate_t<T>>
std::vector<RowGradient<A>> row_gradients(const Tensor& logits, const Tensor& mel, const Tensor& std,
                                          const Tensor& maximum, const T* grad_features,
                                          const Options& options) {
  const int64_t S = logits.size(1), F = logits.size(2), frames = logits.size(3), row = F * frames;
  std::vector<RowGradient<A>> result(logits.size(0) * S);
  parallel_for(0, static_cast<int64_t>(result.size()), grain_for(row), [&](int64_t first, int64_t last) {
    std::vector<A> logit_buffer(frames), mel_buffer(frames), grad_buffer(frames), masked(frames);
    for (int64_t index = first; index < last; ++index) {
      RowGradient<A>& constants = result[index];
      const A largest = maximum.const_data_ptr<A>()[index];
      constants = {static_cast<A>(options.amin), largest, largest * static_cast<A>(options.ratio), A(0),
                   A(0)};
      if (grad_features == nullptr) continue;
      if (std::isnan(largest)) {
        constants.poison = largest;
        continue;
      }
      A sum = 0, ties = 0;
      for (int64_t f = 0; f < F; ++f) {
        const int64_t at = f * frames;
        mask_tile(MaskTile<A>{read(logits.const_data_ptr<T>() + index * row + at, logit_buffer, frames),
                              read(mel.const_data_ptr<T>() + index / S * row + at, mel_buffer, frames),
                              static_cast<A>(options.floor), frames},
                  masked.data());
        A held = 0;
        held_tile(masked.data(), read(grad_features + index * row + at, grad_buffer, frames), constants,
                  frames, held, ties);
        sum += held / std.const_data_ptr<A>()[f];
      }
      if (ties > 0) constants.share = static_cast<A>(kDecibelsPerNeper) * sum / (largest * ties);
    }
  });
  return result;
}

std::tuple<Tensor, Tensor> mel_mask_backward_cpu(const std::optional<Tensor>& grad_masked_in,
                                                 const std::optional<Tensor>& grad_features_in,
                                                 const Tensor& logits_in, const Tensor& mel_in,
                                                 const Tensor& std_in, const Tensor& maximum_in, double floor,
                                                 double amin, double top_db) {
  check_mel_mask_arguments(logits_in, mel_in, std_in);
  const Options options = make_options(floor, amin, top_db);
  const Tensor logits = torch::stable::contiguous(logits_in), mel = torch::stable::contiguous(mel_in);
  const Tensor std = torch::stable::contiguous(std_in), maximum = torch::stable::contiguous(maximum_in);
  const std::optional<Tensor> grad_masked = mel_mask_gradient(grad_masked_in, logits);
  const std::optional<Tensor> grad_features = mel_mask_gradient(grad_features_in, logits);
  const int64_t B = logits.size(0), S = logits.size(1), F = logits.size(2), frames = logits.size(3),
                row = F * frames;
  Tensor grad_logits = torch::stable::new_empty(logits, logits.sizes());
  Tensor grad_mel = torch::stable::new_empty(mel, mel.sizes());

  dispatch_floating(logits.scalar_type(), "mel_mask", [&]<typename T>(TypeTag<T>) {
    using A = accumulate_t<T>;
    const T* to_masked = grad_masked ? grad_masked->const_data_ptr<T>() : nullptr;
    const T* to_features = grad_features ? grad_features->const_data_ptr<T>() : nullptr;
    const auto constants = row_gradients<T>(logits, mel, std, maximum, to_features, options);
    parallel_for(0, B * F, grain_for(S * frames), [&](int64_t first, int64_t last) {
      std::vector<A> logit_buffer(frames), mel_buffer(frames), masked_buffer(frames), feature_buffer(frames);
      std::vector<A> logit_grads(frames), mel_grads(frames);
      const std::vector<A> zeros(frames);
      for (int64_t band = first; band < last; ++band) {
        const int64_t b = band / F, f = band % F;
        const A* band_mel = read(mel.const_data_ptr<T>() + band * frames, mel_buffer, frames);
        std::fill(mel_grads.begin(), mel_grads.end(), A(0));
        const A scale = to_features ? static_cast<A>(kDecibelsPerNeper) / std.const_data_ptr<A>()[f] : A(0);
        for (int64_t s = 0; s < S; ++s) {
          const int64_t at = (b * S + s) * row + f * frames;
          const MaskTile<A> tile{read(logits.const_data_ptr<T>() + at, logit_buffer, frames), band_mel,
                                 static_cast<A>(options.floor), frames};
          T* target = grad_logits.mutable_data_ptr<T>() + at;
          A* values = place(target, logit_grads);
          gradient_tile(tile, to_masked ? read(to_masked + at, masked_buffer, frames) : zeros.data(),
                        to_features ? read(to_features + at, feature_buffer, frames) : zeros.data(), scale,
                        constants[b * S + s], values, mel_grads.data());
          write(values, target, frames);
        }
        T* target = grad_mel.mutable_data_ptr<T>() + band * frames;
        for (int64_t t = 0; t < frames; ++t) target[t] = static_cast<T>(mel_grads[t]);
      }
    });
  });
  return {grad_logits, grad_mel};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(task_aware, m) {
  m.def(
      "mel_mask(Tensor logits, Tensor mel, Tensor mean, Tensor std, float floor, float amin, float top_db)"
      " -> (Tensor, Tensor, Tensor)");
  m.def(
      "mel_mask_backward(Tensor? grad_masked, Tensor? grad_features, Tensor logits, Tensor mel, Tensor std,"
      " Tensor maximum, float floor, float amin, float top_db) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(task_aware, CPU, m) {
  m.impl("mel_mask", TORCH_BOX(&mel_mask_cpu));
  m.impl("mel_mask_backward", TORCH_BOX(&mel_mask_backward_cpu));
}

}  // namespace task_aware
