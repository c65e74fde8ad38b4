// reverb_mix: images[b,s,n] = gains[b,s] * sum over l <= min(n, L-1) of rirs[b,s,l] sources[b,s,n-l]
//             mixture[b,n] = background[b,n] + sum over s of images[b,s,n]
//             sources [B,S,N], rirs [B,S,L], gains [B,S], background [B,N]
//
// Overlap-save with few large blocks: a block of P complex values holds two stretches of one source, one as real
// and one as imaginary part (the response is real, so they stay apart), and each yields P - L + 1 samples.
// Threads share the pairs of stretches of all clips; a thread adds up a pair's mixture while it lies in its cache.
// Where only the mixture is wanted, the sources are added up as spectra and transformed back once. A source that
// is silent in a pair of stretches, and in the L - 1 samples before each, costs only the look at it.
// Traffic: sources and responses read once, images and mixture written once; the blocks live in the caches.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <tuple>
#include <vector>

#include "common/arguments.h"
#include "common/dispatch.h"
#include "common/parallel.h"
#include "cpu/fft.h"
#include "cpu/pages.h"
#include "cpu/streaming.h"
#include "cpu/vectors.h"

namespace task_aware {
namespace {

/// How N samples are cut: `pairs` blocks of `length`, each holding two stretches of `advance` new samples.
struct Blocks {
  int64_t pairs;
  int64_t length;
  int64_t advance;
};

/// The most blocks within 5 % of the least arithmetic: smaller ones fit into caches and leave out more silence.
Blocks choose_blocks(int64_t N, int64_t L) {
  constexpr int64_t kMaxPairs = 64;
  Blocks best{};
  double least = 0;
  for (int64_t pairs = 1; pairs <= kMaxPairs; ++pairs) {
    const int64_t stretch = (N + 2 * pairs - 1) / (2 * pairs);
    const int64_t length = fast_fft_length(stretch + L - 1);
    const double size = static_cast<double>(length);
    const double cost = static_cast<double>(2 * pairs + 1) * size * std::log2(size);
    if (pairs == 1 || cost < least) least = cost;
    if (cost <= 1.05 * least) best = {pairs, length, length - L + 1};
  }
  return best;
}

template <typename T>
struct MixParams {
  const T* sources;
  const T* rirs;
  const T* gains;
  const T* background;  // or null
  T* images;            // or null
  T* mixture;
  int64_t S, N, L;
  int64_t rir_stride;  // samples between rows of rirs
  bool streams;        // whether images go past the caches
  Blocks blocks;
};

template <typename T>
struct Product {
  SplitComplex<T> block;
  SplitComplex<T> response;
  SplitComplex<T> to;  // may be `block`
  int64_t length;
  bool adds;  // to what `to` holds
};

template <typename T>
struct Multiply {
  template <int kBytes>
  static TASK_AWARE_INLINE void run(const Product<T>& p) {
    p.adds ? multiply<true>(p) : multiply<false>(p);
  }

  template <bool kAdds>
  static TASK_AWARE_INLINE void multiply(const Product<T>& p) {
    const T *const re = p.block.re, *const im = p.block.im;
    const T *const other_re = p.response.re, *const other_im = p.response.im;
    T *const to_re = p.to.re, *const to_im = p.to.im;
    TASK_AWARE_IVDEP
    for (int64_t i = 0; i < p.length; ++i) {
      const T real = re[i] * other_re[i] - im[i] * other_im[i];
      const T imaginary = re[i] * other_im[i] + im[i] * other_re[i];
      to_re[i] = kAdds ? to_re[i] + real : real;
      to_im[i] = kAdds ? to_im[i] + imaginary : imaginary;
    }
  }
};

/// Samples start .. end-1 of a row.
struct Stretch {
  int64_t start, end;
};

/// One thread's arrays, and the responses of the clip it is at.
template <typename T>
class PairMixer {
 public:
  explicit PairMixer(const MixParams<T>& params)
      : p_(params), plan_(fft_plan<T>(params.blocks.length)), arrays_(params.S + 3, params.blocks.length) {
    for (int64_t s = 0; s < p_.S; ++s) responses_.push_back(arrays_[s]);
    block_ = arrays_[p_.S], work_ = arrays_[p_.S + 1], sum_ = arrays_[p_.S + 2];
  }

  /// The stretches 2 * pair and 2 * pair + 1 of clip b.
  void mix(int64_t b, int64_t pair) {
    if (b != clip_) transformed_.assign(p_.S, false);
    clip_ = b;
    const Stretch early = stretch(2 * pair), late = stretch(2 * pair + 1);
    begin_mixture(early);
    begin_mixture(late);
    bool added = false;
    for (int64_t s = 0; s < p_.S; ++s) {
      if (is_silent(s, early) && is_silent(s, late)) {
        if (p_.images) std::fill(image(s) + early.start, image(s) + late.end, T(0));
        continue;
      }
      const SplitComplex<T> response = transformed_response(s);
      load(s, early, block_.re);
      load(s, late, block_.im);
      transform();
      if (p_.images) {
        run_vectorised<Multiply<T>>(Product<T>{block_, response, block_, plan_->size(), false});
        transform_back();
        write_image(s, early, block_.re);
        write_image(s, late, block_.im);
      } else {
        run_vectorised<Multiply<T>>(Product<T>{block_, response, sum_, plan_->size(), added});
        added = true;
      }
    }
    if (added) {
      std::swap(block_, sum_);
      transform_back();
      add_to_mixture(early, block_.re);
      add_to_mixture(late, block_.im);
    }
  }

 private:
  Stretch stretch(int64_t k) const {
    return {std::min(k * p_.blocks.advance, p_.N), std::min((k + 1) * p_.blocks.advance, p_.N)};
  }
  int64_t row(int64_t s) const { return clip_ * p_.S + s; }
  const T* source(int64_t s) const { return p_.sources + row(s) * p_.N; }
  T* image(int64_t s) const { return p_.images + row(s) * p_.N; }
  T* mixture() const { return p_.mixture + clip_ * p_.N; }

  /// block_ becomes its transform; work_ is lost.
  void transform() {
    if (plan_->transform(block_, work_).re != block_.re) std::swap(block_, work_);
  }
  void transform_back() {
    if (plan_->transform(block_.swapped(), work_.swapped()).im != block_.re) std::swap(block_, work_);
  }

  /// The spectrum of a response, times gain / P.
  SplitComplex<T> transformed_response(int64_t s) {
    if (!transformed_[s]) {
      const T scale = p_.gains[row(s)] / static_cast<T>(plan_->size());
      const T* rir = p_.rirs + row(s) * p_.rir_stride;
      T* const end = std::transform(rir, rir + p_.L, block_.re, [&](T value) { return scale * value; });
      std::fill(end, block_.re + plan_->size(), T(0));
      std::fill(block_.im, block_.im + plan_->size(), T(0));
      transform();
      std::swap(block_, responses_[s]);
      transformed_[s] = true;
    }
    return responses_[s];
  }

  /// Whether a source adds nothing to a stretch.
  bool is_silent(int64_t s, Stretch to) const {
    if (p_.gains[row(s)] == T(0) || to.start == to.end) return true;
    const T* const samples = source(s);
    return std::all_of(samples + std::max<int64_t>(0, to.start - p_.L + 1), samples + to.end,
                       [](T value) { return value == T(0); });
  }

  /// The L - 1 samples before a stretch, the stretch, and zeros up to the block's end.
  void load(int64_t s, Stretch from, T* block) const {
    const int64_t before = std::min(from.start, p_.L - 1);
    T* const first = block + (p_.L - 1 - before);
    std::fill(block, first, T(0));
    T* const end = std::copy(source(s) + from.start - before, source(s) + from.end, first);
    std::fill(end, block + plan_->size(), T(0));
  }

  void begin_mixture(Stretch to) const {
    if (p_.background) {
      const T* const background = p_.background + clip_ * p_.N;
      std::copy(background + to.start, background + to.end, mixture() + to.start);
    } else {
      std::fill(mixture() + to.start, mixture() + to.end, T(0));
    }
  }

  void write_image(int64_t s, Stretch to, const T* block) const {
    const T* const values = block + p_.L - 1;
    T* const sum = mixture() + to.start;
    write_values(image(s) + to.start, to.end - to.start, p_.streams, [=](int64_t n) TASK_AWARE_LAMBDA {
      sum[n] += values[n];
      return values[n];
    });
  }

  void add_to_mixture(Stretch to, const T* block) const {
    const T* const values = block + p_.L - 1;
    T* const sum = mixture() + to.start;
    for (int64_t n = 0; n < to.end - to.start; ++n) sum[n] += values[n];
  }

  const MixParams<T>& p_;
  std::shared_ptr<const FftPlan<T>> plan_;
  SplitArrays<T> arrays_;
  SplitComplex<T> block_, work_, sum_;
  std::vector<SplitComplex<T>> responses_;
  std::vector<bool> transformed_;  // of the responses of clip_
  int64_t clip_ = -1;
};

std::tuple<Tensor, Tensor> reverb_mix_cpu(const Tensor& sources_in, const Tensor& rirs_in,
                                          const Tensor& gains_in, const std::optional<Tensor>& background_in,
                                          const std::optional<Tensor>&, bool wants_images) {
  check_reverb_mix_arguments(sources_in, rirs_in, gains_in, background_in);
  const Tensor sources = torch::stable::contiguous(sources_in), rirs = torch::stable::contiguous(rirs_in);
  const Tensor gains = torch::stable::contiguous(gains_in);
  const std::optional<Tensor> background = contiguous_if_given(background_in);
  const int64_t B = sources.size(0), S = sources.size(1), N = sources.size(2);
  Tensor images = new_output(sources, {B, S, wants_images ? N : 0});
  Tensor mixture = torch::stable::new_empty(sources, {B, N});
  if (mixture.numel() == 0) return {images, mixture};

  dispatch_real(sources.scalar_type(), "reverb_mix", [&]<typename T>(TypeTag<T>) {
    const int64_t L = std::min(rirs.size(2), N);
    const MixParams<T> params{sources.const_data_ptr<T>(),
                              rirs.const_data_ptr<T>(),
                              gains.const_data_ptr<T>(),
                              background ? background->const_data_ptr<T>() : nullptr,
                              wants_images ? images.mutable_data_ptr<T>() : nullptr,
                              mixture.mutable_data_ptr<T>(),
                              S,
                              N,
                              L,
                              rirs.size(2),
                              2 * B * S * N * static_cast<int64_t>(sizeof(T)) > kCacheBytes,
                              choose_blocks(N, L)};
    const int64_t pairs = params.blocks.pairs;
    parallel_for(0, B * pairs, grain_for(2 * S * params.blocks.advance), [&](int64_t first, int64_t last) {
      PairMixer<T> mixer(params);
      for (int64_t index = first; index < last; ++index) mixer.mix(index / pairs, index % pairs);
      finish_streaming();
    });
  });
  return {images, mixture};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(task_aware, m) {
  // `roots` is what the CUDA kernels look up: csrc/cuda/register_fft.cuh.
  m.def(
      "reverb_mix(Tensor sources, Tensor rirs, Tensor gains, Tensor? background, Tensor? roots, bool "
      "wants_images) "
      "-> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(task_aware, CPU, m) { m.impl("reverb_mix", TORCH_BOX(&reverb_mix_cpu)); }

}  // namespace task_aware
