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
// Traffic: forward reads the logits once and writes both outputs once; a (b,s) row waits for its maximum in the
// L2 cache. Backward reads logits and gradients once, computes the mask again and writes once: what the elements
// at a maximum receive is known after that, so the bands that hold one are computed twice. Threads share the
// (b,s) rows, then the (b,f) bands.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <tuple>
#include <type_traits>
#include <vector>

#include "common/arguments.h"
#include "common/dispatch.h"
#include "common/parallel.h"
#include "cpu/mel_mask_rows.h"
#include "cpu/pages.h"

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

std::tuple<Tensor, Tensor, Tensor> mel_mask_cpu(const Tensor& logits_in, const Tensor& mel_in,
                                                const Tensor& mean_in, const Tensor& std_in, double floor,
                                                double amin, double top_db) {
  check_mel_mask_arguments(logits_in, mel_in, std_in);
  const Options options = make_options(floor, amin, top_db);
  const Tensor logits = torch::stable::contiguous(logits_in), mel = torch::stable::contiguous(mel_in);
  const Tensor mean = torch::stable::contiguous(mean_in), std = torch::stable::contiguous(std_in);
  const int64_t B = logits.size(0), S = logits.size(1), F = logits.size(2), frames = logits.size(3),
                row = F * frames;
  Tensor masked = new_output(logits, logits.sizes());
  Tensor features = new_output(logits, logits.sizes());
  Tensor maximum = torch::stable::new_empty(std, {B, S});

  dispatch_floating(logits.scalar_type(), "mel_mask", [&]<typename T>(TypeTag<T>) {
    using A = accumulate_t<T>;
    parallel_for(0, B * S, grain_for(row), [&](int64_t first, int64_t last) {
      std::vector<A> unrounded(std::is_same_v<T, A> ? 0 : row);
      for (int64_t index = first; index < last; ++index) {
        T* row_masked = masked.mutable_data_ptr<T>() + index * row;
        A* row_unrounded = unrounded.data();
        if constexpr (std::is_same_v<T, A>) row_unrounded = row_masked;
        run_vectorised<ForwardRow<T>>(RowParams<T>{
            logits.const_data_ptr<T>() + index * row, mel.const_data_ptr<T>() + index / S * row,
            mean.const_data_ptr<A>(), std.const_data_ptr<A>(), F, frames, static_cast<A>(options.floor),
            static_cast<A>(options.amin), static_cast<A>(options.ratio), row_masked, row_unrounded,
            features.mutable_data_ptr<T>() + index * row, maximum.mutable_data_ptr<A>() + index});
      }
    });
  });
  return {masked, features, maximum};
}

std::tuple<Tensor, Tensor> mel_mask_backward_cpu(const std::optional<Tensor>& grad_masked_in,
                                                 const std::optional<Tensor>& grad_features_in,
                                                 const Tensor& logits_in, const Tensor& mel_in,
                                                 const Tensor& std_in, const Tensor& maximum_in, double floor,
                                                 double amin, double top_db, bool wants_mel) {
  check_mel_mask_arguments(logits_in, mel_in, std_in);
  const Options options = make_options(floor, amin, top_db);
  const Tensor logits = torch::stable::contiguous(logits_in), mel = torch::stable::contiguous(mel_in);
  const Tensor std = torch::stable::contiguous(std_in), maximum = torch::stable::contiguous(maximum_in);
  const std::optional<Tensor> grad_masked = mel_mask_gradient(grad_masked_in, logits);
  const std::optional<Tensor> grad_features = mel_mask_gradient(grad_features_in, logits);
  const int64_t B = logits.size(0), S = logits.size(1), F = logits.size(2), frames = logits.size(3),
                row = F * frames;
  Tensor grad_logits = new_output(logits, logits.sizes());
  Tensor grad_mel =
      wants_mel ? torch::stable::new_empty(mel, mel.sizes()) : torch::stable::new_empty(mel, {0});

  dispatch_floating(logits.scalar_type(), "mel_mask", [&]<typename T>(TypeTag<T>) {
    using A = accumulate_t<T>;
    const A *stds = std.const_data_ptr<A>(), *maxima = maximum.const_data_ptr<A>();
    const T* const to_masked = grad_masked ? grad_masked->const_data_ptr<T>() : nullptr;
    const T* const to_features = grad_features ? grad_features->const_data_ptr<T>() : nullptr;
    std::vector<BandStatistics> statistics(to_features == nullptr ? 0 : B * S * F);
    const auto band = [&](int64_t index, const A* shares, A* scratch) {
      const int64_t b = index / F, f = index % F, at = b * S * row + f * frames;
      run_vectorised<BackwardBand<T>>(BandParams<T>{
          logits.const_data_ptr<T>() + at, to_masked == nullptr ? nullptr : to_masked + at,
          to_features == nullptr ? nullptr : to_features + at, mel.const_data_ptr<T>() + index * frames,
          maxima + b * S, shares == nullptr ? nullptr : shares + b * S, S, row, frames,
          static_cast<A>(options.floor), static_cast<A>(options.amin), static_cast<A>(options.ratio),
          static_cast<A>(kDecibelsPerNeper) / stds[f], scratch, grad_logits.mutable_data_ptr<T>() + at,
          wants_mel ? grad_mel.mutable_data_ptr<T>() + index * frames : nullptr,
          to_features == nullptr ? nullptr : statistics.data() + b * S * F + f, F,
          4 * logits.numel() * logits.element_size() > kCacheBytes});
    };
    const auto bands = [&](const std::vector<int64_t>& chosen, const A* shares) {
      parallel_for(0, static_cast<int64_t>(chosen.size()), grain_for(S * frames),
                   [&](int64_t first, int64_t last) {
                     std::vector<A> scratch(2 * frames);
                     for (int64_t k = first; k < last; ++k) band(chosen[k], shares, scratch.data());
                     finish_streaming();
                   });
    };
    std::vector<int64_t> chosen(B * F);
    std::iota(chosen.begin(), chosen.end(), int64_t{0});
    bands(chosen, nullptr);
    if (to_features == nullptr) return;

    // Once more the bands whose elements at the maximum receive for others: one or a few of each item.
    std::vector<A> shares(B * S);
    std::vector<bool> again(B * F);
    for (int64_t index = 0; index < B * S; ++index) {
      const BandStatistics* of_row = statistics.data() + index * F;
      double held = 0, ties = 0;
      for (int64_t f = 0; f < F; ++f) {
        held += of_row[f].held / stds[f];
        ties += of_row[f].ties;
      }
      if (held == 0 || ties == 0) continue;
      shares[index] = static_cast<A>(kDecibelsPerNeper * held / (maxima[index] * ties));
      for (int64_t f = 0; f < F; ++f)
        again[index / S * F + f] = again[index / S * F + f] || of_row[f].ties > 0;
    }
    chosen.clear();
    for (int64_t index = 0; index < B * F; ++index) {
      if (again[index]) chosen.push_back(index);
    }
    bands(chosen, shares.data());
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
      " Tensor maximum, float floor, float amin, float top_db, bool wants_mel) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(task_aware, CPU, m) {
  m.impl("mel_mask", TORCH_BOX(&mel_mask_cpu));
  m.impl("mel_mask_backward", TORCH_BOX(&mel_mask_backward_cpu));
}

}  // namespace task_aware
