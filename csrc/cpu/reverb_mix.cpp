// reverb_mix: images[b,s,n] = gains[b,s] * sum over l <= min(n, L-1) of rirs[b,s,l] sources[b,s,n-l]
//             mixture[b,n] = background[b,n] + sum over s of images[b,s,n]
//             sources [B,S,N], rirs [B,S,L], gains [B,S], background [B,N]
//
// Overlap-save with few large blocks: a block of P complex values holds two stretches of one source, one as
// real and one as imaginary part (the response is real, so they stay apart), and each yields P - L + 1
// samples. The number of blocks minimises the butterflies. Traffic: sources and responses read once, images
// written once and read once more for the mixture; the blocks live in the caches. Threads share the (b,s)
// rows. Silent rows cost their zeros only.

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
#include "cpu/vectors.h"

namespace task_aware {
namespace {

/// How N samples are cut: `pairs` transforms of `length`, each holding two stretches of `advance` new
/// samples.
struct Blocks {
  int64_t pairs;
  int64_t length;
  int64_t advance;
};

Blocks choose_blocks(int64_t N, int64_t L) {
  constexpr int64_t kMaxPairs = 64;
  Blocks best{};
  double best_cost = 0;
  for (int64_t pairs = 1; pairs <= kMaxPairs; ++pairs) {
    const int64_t stretch = (N + 2 * pairs - 1) / (2 * pairs);
    const int64_t length = fast_fft_length(stretch + L - 1);
    const double size = static_cast<double>(length);
    const double cost = static_cast<double>(2 * pairs + 1) * size * std::log2(size + 1);
    if (pairs == 1 || cost < best_cost) {
      best = {pairs, length, length - L + 1};
      best_cost = cost;
    }
  }
  return best;
}

template <typename T>
struct Spectra {
  SplitComplex<T> block;  // becomes the product
  SplitComplex<T> response;
  int64_t count;
};

template <typename T>
struct Multiply {
  template <int kBytes>
  static TASK_AWARE_INLINE void run(const Spectra<T>& p) {
    T *const re = p.block.re, *const im = p.block.im;
    const T *const other_re = p.response.re, *const other_im = p.response.im;
#pragma GCC ivdep
    for (int64_t i = 0; i < p.count; ++i) {
      const T real = re[i] * other_re[i] - im[i] * other_im[i];
      im[i] = re[i] * other_im[i] + im[i] * other_re[i];
      re[i] = real;
    }
  }
};

/// Copies source[start .. start+count) to `target`, zeros outside 0..N-1.
template <typename T>
void copy_stretch(const T* source, int64_t N, int64_t start, int64_t count, T* target) {
  const int64_t first = std::clamp<int64_t>(-start, 0, count),
                last = std::clamp<int64_t>(N - start, first, count);
  std::fill(target, target + first, T(0));
  if (first < last) std::copy(source + start + first, source + start + last, target + first);
  std::fill(target + last, target + count, T(0));
}

template <typename T>
class RowConvolution {
 public:
  RowConvolution(int64_t N, int64_t L)
      : N_(N),
        L_(L),
        blocks_(choose_blocks(N, L)),
        plan_(fft_plan<T>(blocks_.length)),
        arrays_(3, blocks_.length) {}

  void run(const T* source, const T* rir, T gain, T* image) {
    const int64_t P = blocks_.length;
    SplitComplex<T> free[3] = {arrays_[0], arrays_[1], arrays_[2]};

    const T scale = gain / static_cast<T>(P);
    std::transform(rir, rir + L_, free[0].re, [&](T value) { return scale * value; });
    std::fill(free[0].re + L_, free[0].re + P, T(0));
    std::fill(free[0].im, free[0].im + P, T(0));
    const SplitComplex<T> response = plan_->transform(free[0], free[1]);
    if (response.re == free[1].re) std::swap(free[0], free[1]);  // free[0] holds the response from here on

    for (int64_t pair = 0; pair < blocks_.pairs; ++pair) {
      const int64_t start = 2 * pair * blocks_.advance;  // first new sample
      copy_stretch(source, N_, start - (L_ - 1), P, free[1].re);
      copy_stretch(source, N_, start + blocks_.advance - (L_ - 1), P, free[1].im);
      SplitComplex<T> block = plan_->transform(free[1], free[2]);
      run_vectorised<Multiply<T>>(Spectra<T>{block, response, P});
      const SplitComplex<T> other = block.re == free[1].re ? free[2] : free[1];
      block = plan_->transform(block.swapped(), other.swapped()).swapped();
      store(block.re, start, image);
      store(block.im, start + blocks_.advance, image);
    }
  }

 private:
  void store(const T* block, int64_t start, T* image) const {
    const int64_t count = std::min(blocks_.advance, N_ - start);
    if (count > 0) std::copy(block + L_ - 1, block + L_ - 1 + count, image + start);
  }

  int64_t N_;
  int64_t L_;
  Blocks blocks_;
  std::shared_ptr<const FftPlan<T>> plan_;
  SplitArrays<T> arrays_;
};

template <typename T>
void mix(const T* images, const T* background, int64_t B, int64_t S, int64_t N, T* mixture) {
  constexpr int64_t kChunk = 4096;
  const int64_t chunks = (N + kChunk - 1) / kChunk;
  parallel_for(0, B * chunks, grain_for(S * kChunk), [&](int64_t first, int64_t last) {
    for (int64_t index = first; index < last; ++index) {
      const int64_t b = index / chunks, start = index % chunks * kChunk, end = std::min(N, start + kChunk);
      T* out = mixture + b * N;
      if (background) {
        std::copy(background + b * N + start, background + b * N + end, out + start);
      } else {
        std::fill(out + start, out + end, T(0));
      }
      for (int64_t s = 0; s < S; ++s) {
        const T* image = images + (b * S + s) * N;
        for (int64_t n = start; n < end; ++n) out[n] += image[n];
      }
    }
  });
}

std::tuple<Tensor, Tensor> reverb_mix_cpu(const Tensor& sources_in, const Tensor& rirs_in,
                                          const Tensor& gains_in,
                                          const std::optional<Tensor>& background_in) {
  check_reverb_mix_arguments(sources_in, rirs_in, gains_in, background_in);
  const Tensor sources = torch::stable::contiguous(sources_in), rirs = torch::stable::contiguous(rirs_in);
  const Tensor gains = torch::stable::contiguous(gains_in);
  const std::optional<Tensor> background = contiguous_if_given(background_in);
  const int64_t B = sources.size(0), S = sources.size(1), N = sources.size(2), stride = rirs.size(2);
  const int64_t L = std::min(stride, N);
  Tensor images = torch::stable::new_empty(sources, {B, S, N});
  Tensor mixture = torch::stable::new_empty(sources, {B, N});
  if (mixture.numel() == 0) return {images, mixture};

  dispatch_real(sources.scalar_type(), "reverb_mix", [&]<typename T>(TypeTag<T>) {
    const T* source = sources.const_data_ptr<T>();
    T* image = images.mutable_data_ptr<T>();
    parallel_for(0, B * S, grain_for(N), [&](int64_t first, int64_t last) {
      RowConvolution<T> convolution(N, L);
      for (int64_t row = first; row < last; ++row) {
        const T gain = gains.const_data_ptr<T>()[row];
        const T* in = source + row * N;
        if (gain == T(0) || std::all_of(in, in + N, [](T value) { return value == T(0); })) {
          std::fill(image + row * N, image + (row + 1) * N, T(0));
        } else {
          convolution.run(in, rirs.const_data_ptr<T>() + row * stride, gain, image + row * N);
        }
      }
    });
    mix(image, background ? background->const_data_ptr<T>() : nullptr, B, S, N,
        mixture.mutable_data_ptr<T>());
  });
  return {images, mixture};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(task_aware, m) {
  m.def("reverb_mix(Tensor sources, Tensor rirs, Tensor gains, Tensor? background) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(task_aware, CPU, m) { m.impl("reverb_mix", TORCH_BOX(&reverb_mix_cpu)); }

}  // namespace task_aware
