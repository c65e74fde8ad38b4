#include "cpu/fft.h"

#include <algorithm>
#include <cmath>
#include <list>
#include <mutex>
#include <numbers>
#include <utility>

#include "common/butterflies.h"
#include "common/parallel.h"

namespace task_aware {
namespace {

constexpr size_t kPlansKept = 8;

/// One stage: `length` elements remain to be transformed at distance `stride` (lanes times the radices done).
/// The root of unity of this stage is cosines[step] + i sines[step].
template <typename T>
struct Stage {
  SplitComplex<T> in;
  SplitComplex<T> out;
  const T* cosines;
  const T* sines;
  int64_t length;
  int64_t stride;
  int64_t step;
};

template <int kRadix, typename T>
TASK_AWARE_INLINE void stage_values(const Stage<T>& stage, int64_t p, int64_t q,
                                    const Complex<T> (&twiddle)[kRadix], int64_t m) {
  Complex<T> a[kRadix];
  for (int k = 0; k < kRadix; ++k) {
    const int64_t from = q + stage.stride * (p + m * k);
    a[k] = {stage.in.re[from], stage.in.im[from]};
  }
  butterfly(a);
  for (int j = 0; j < kRadix; ++j) {
    const int64_t to = q + stage.stride * (kRadix * p + j);
    const Complex<T> value = j == 0 ? a[0] : a[j] * twiddle[j];
    stage.out.re[to] = value.re;
    stage.out.im[to] = value.im;
  }
}

/// `kStride` is the stride where it is known to be short (so that the compiler unrolls the inner loop), else
/// 0.
template <int kRadix, int kStride, typename T>
TASK_AWARE_INLINE void radix_stage(const Stage<T>& stage_in) {
  Stage<T> stage = stage_in;
  if constexpr (kStride > 0) stage.stride = kStride;
  const int64_t m = stage.length / kRadix;
  for (int64_t p = 0; p < m; ++p) {
    Complex<T> twiddle[kRadix];
    for (int j = 1; j < kRadix; ++j)
      twiddle[j] = {stage.cosines[p * j * stage.step], stage.sines[p * j * stage.step]};
#pragma GCC ivdep
    for (int64_t q = 0; q < stage.stride; ++q) stage_values<kRadix>(stage, p, q, twiddle, m);
  }
}

/// The first stage of a single transform: neighbouring values belong to neighbouring p.
template <int kRadix, typename T>
TASK_AWARE_INLINE void first_stage(const Stage<T>& stage_in) {
  Stage<T> stage = stage_in;
  stage.stride = 1;
  const int64_t m = stage.length / kRadix;
#pragma GCC ivdep
  for (int64_t p = 0; p < m; ++p) {
    Complex<T> twiddle[kRadix];
    for (int j = 1; j < kRadix; ++j) twiddle[j] = {stage.cosines[p * j], stage.sines[p * j]};
    stage_values<kRadix>(stage, p, 0, twiddle, m);
  }
}

/// Any radix, by the definition: b[j] = sum over k of a[k] w^(jk).
template <typename T>
TASK_AWARE_INLINE void general_stage(const Stage<T>& stage, int64_t radix, int64_t size) {
  const int64_t m = stage.length / radix, turn = size / radix;
  for (int64_t p = 0; p < m; ++p) {
    for (int64_t j = 0; j < radix; ++j) {
      T* out_re = stage.out.re + stage.stride * (radix * p + j);
      T* out_im = stage.out.im + stage.stride * (radix * p + j);
      std::fill(out_re, out_re + stage.stride, T(0));
      std::fill(out_im, out_im + stage.stride, T(0));
      for (int64_t k = 0; k < radix; ++k) {
        const int64_t angle = (j * k % radix * turn + p * j * stage.step) % size;
        const T c = stage.cosines[angle], s = stage.sines[angle];
        const T* in_re = stage.in.re + stage.stride * (p + m * k);
        const T* in_im = stage.in.im + stage.stride * (p + m * k);
#pragma GCC ivdep
        for (int64_t q = 0; q < stage.stride; ++q) {
          out_re[q] += in_re[q] * c - in_im[q] * s;
          out_im[q] += in_re[q] * s + in_im[q] * c;
        }
      }
    }
  }
}

template <typename T>
TASK_AWARE_INLINE void run_stage(const Stage<T>& stage, int64_t radix, int64_t size) {
  const bool first = stage.stride == 1;
  switch (radix) {
    case 2:
      return first ? first_stage<2>(stage) : radix_stage<2, 0>(stage);
    case 3:
      return first ? first_stage<3>(stage) : radix_stage<3, 0>(stage);
    case 4:
      if (first) return first_stage<4>(stage);
      return stage.stride == 4 ? radix_stage<4, 4>(stage) : radix_stage<4, 0>(stage);
    case 5:
      return first ? first_stage<5>(stage) : radix_stage<5, 0>(stage);
    default:
      return general_stage(stage, radix, size);
  }
}

TASK_AWARE_CLONES void run(const Stage<float>& stage, int64_t radix, int64_t size) {
  run_stage(stage, radix, size);
}
TASK_AWARE_CLONES void run(const Stage<double>& stage, int64_t radix, int64_t size) {
  run_stage(stage, radix, size);
}

std::vector<int64_t> factors(int64_t size) {
  std::vector<int64_t> result;
  for (const int64_t radix : {4, 2, 3, 5}) {
    for (; size % radix == 0; size /= radix) result.push_back(radix);
  }
  for (int64_t prime = 7; size > 1; prime += 2) {
    if (prime * prime > size) prime = size;
    for (; size % prime == 0; size /= prime) result.push_back(prime);
  }
  return result;
}

}  // namespace

template <typename T>
FftPlan<T>::FftPlan(int64_t size) : size_(size), radices_(factors(size)), cosines_(size), sines_(size) {
  // Angles of the first quadrant only, in double: exact symmetry and no large arguments.
  for (int64_t i = 0; i < size; ++i) {
    const int64_t quadrant = 4 * i / size;
    const double angle =
        std::numbers::pi / 2 * static_cast<double>(4 * i - quadrant * size) / static_cast<double>(size);
    const double c = std::cos(angle), s = std::sin(angle);
    const double cosine[4] = {c, -s, -c, s}, sine[4] = {s, c, -s, -c};
    cosines_[i] = static_cast<T>(cosine[quadrant]);
    sines_[i] = static_cast<T>(-sine[quadrant]);
  }
}

template <typename T>
SplitComplex<T> FftPlan<T>::transform(SplitComplex<T> data, SplitComplex<T> work, int64_t lanes) const {
  int64_t done = 1;
  for (const int64_t radix : radices_) {
    run(Stage<T>{data, work, cosines_.data(), sines_.data(), size_ / done, lanes * done, done}, radix, size_);
    std::swap(data, work);
    done *= radix;
  }
  return data;
}

template <typename T>
std::shared_ptr<const FftPlan<T>> fft_plan(int64_t size) {
  static std::mutex mutex;
  static std::list<std::shared_ptr<const FftPlan<T>>> plans;  // the latest first
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found =
      std::find_if(plans.begin(), plans.end(), [&](const auto& plan) { return plan->size() == size; });
  if (found != plans.end()) {
    plans.splice(plans.begin(), plans, found);
  } else {
    plans.push_front(std::make_shared<const FftPlan<T>>(size));
    if (plans.size() > kPlansKept) plans.pop_back();
  }
  return plans.front();
}

int64_t fast_fft_length(int64_t minimum) {
  int64_t best = 1;
  while (best < minimum) best *= 2;
  for (int64_t five = 1; five < best; five *= 5) {
    for (int64_t odd = five; odd < best; odd *= 3) {
      int64_t length = odd;
      while (length < minimum) length *= 2;
      best = std::min(best, length);
    }
  }
  return best;
}

template class FftPlan<float>;
template class FftPlan<double>;
template std::shared_ptr<const FftPlan<float>> fft_plan(int64_t);
template std::shared_ptr<const FftPlan<double>> fft_plan(int64_t);

}  // namespace task_aware
