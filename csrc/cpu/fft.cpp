#include "cpu/fft.h"

#include <algorithm>
#include <cmath>
#include <list>
#include <mutex>
#include <numbers>
#include <utility>

#include "common/butterflies.h"
#include "common/parallel.h"
#include "cpu/vectors.h"

namespace task_aware {
namespace {

constexpr size_t kPlansKept = 8;
constexpr int64_t kWidestVector = 16;
constexpr int64_t kVectorFriendly = 4 * kWidestVector;  // lengths divided by it have no stage without vectors

template <typename T>
struct Transform {
  SplitComplex<T> in;
  SplitComplex<T> out;
  const std::vector<FftStage>& stages;
  const T* cosines;
  const T* sines;
  int64_t size;
};

template <typename V>
TASK_AWARE_INLINE Complex<V> read(SplitComplex<scalar_t<V>> from, int64_t at) {
  Complex<V> value;
  std::memcpy(&value.re, from.re + at, sizeof(V));
  std::memcpy(&value.im, from.im + at, sizeof(V));
  return value;
}

template <typename V>
TASK_AWARE_INLINE void write(SplitComplex<scalar_t<V>> to, int64_t at, Complex<V> value) {
  std::memcpy(to.re + at, &value.re, sizeof(V));
  std::memcpy(to.im + at, &value.im, sizeof(V));
}

/// A stage whose stride is a multiple of V's lanes; V may be a number.
template <int kRadix, typename V, typename T = scalar_t<V>>
TASK_AWARE_INLINE void strided_stage(const Transform<T>& transform, const FftStage& stage) {
  constexpr int64_t kLanes = sizeof(V) / sizeof(T);
  const int64_t groups = stage.length / kRadix, stride = stage.stride, apart = transform.size / kRadix;
  const T *cosines = transform.cosines + stage.roots, *sines = transform.sines + stage.roots;
  const SplitComplex<T> in = transform.in, out = transform.out;
  for (int64_t p = 0; p < groups; ++p) {
    T cosine[kRadix], sine[kRadix];
    for (int j = 1; j < kRadix; ++j) {
      const int64_t at = ((j - 1) * groups + p) * stage.repeats;
      cosine[j] = cosines[at], sine[j] = sines[at];
    }
    TASK_AWARE_IVDEP
    for (int64_t q = 0; q < stride; q += kLanes) {
      Complex<V> a[kRadix];
      for (int k = 0; k < kRadix; ++k) a[k] = read<V>(in, p * stride + q + k * apart);
      butterfly(a);
      write(out, p * kRadix * stride + q, a[0]);
      for (int j = 1; j < kRadix; ++j) {
        const Complex<V> turned{a[j].re * cosine[j] - a[j].im * sine[j],
                                a[j].re * sine[j] + a[j].im * cosine[j]};
        write(out, (p * kRadix + j) * stride + q, turned);
      }
    }
  }
}

template <int kGroup, bool kHigh, typename V, int... kLane>
TASK_AWARE_INLINE V zip_half(V a, V b, std::integer_sequence<int, kLane...>) {
  constexpr int kLanes = sizeof...(kLane);
  // Output lane l belongs to group l / kGroup: an even one is of a, an odd one of b.
  return shuffle(a, b,
                 std::integer_sequence<int, ((kLane / kGroup % 2) * kLanes + kHigh * kLanes / 2 +
                                             kLane / kGroup / 2 * kGroup + kLane % kGroup)...>{});
}

/// Interleaves four vectors in groups of kGroup lanes: a b c d a b c d ...
template <int kGroup, typename V>
TASK_AWARE_INLINE void interleave(V (&a)[4]) {
  constexpr auto lanes = kLaneNumbers<V>;
  const V even_low = zip_half<kGroup, false>(a[0], a[2], lanes),
          even_high = zip_half<kGroup, true>(a[0], a[2], lanes);
  const V odd_low = zip_half<kGroup, false>(a[1], a[3], lanes),
          odd_high = zip_half<kGroup, true>(a[1], a[3], lanes);
  a[0] = zip_half<kGroup, false>(even_low, odd_low, lanes),
  a[1] = zip_half<kGroup, true>(even_low, odd_low, lanes);
  a[2] = zip_half<kGroup, false>(even_high, odd_high, lanes),
  a[3] = zip_half<kGroup, true>(even_high, odd_high, lanes);
}

/// A stage of radix 4 whose stride divides V's lanes: a vector spans several p, whose results are interleaved.
template <int kStride, typename V, typename T = scalar_t<V>>
TASK_AWARE_INLINE void interleaved_stage(const Transform<T>& transform, const FftStage& stage) {
  const int64_t apart = transform.size / 4;
  const SplitComplex<T> in = transform.in, out = transform.out;
  const SplitComplex<T> roots{const_cast<T*>(transform.cosines + stage.roots),
                              const_cast<T*>(transform.sines + stage.roots)};
  for (int64_t i = 0; i < apart; i += kLanesOf<V>) {
    Complex<V> a[4];
    for (int k = 0; k < 4; ++k) a[k] = read<V>(in, i + k * apart);
    butterfly(a);
    for (int j = 1; j < 4; ++j) a[j] = a[j] * read<V>(roots, (j - 1) * apart + i);
    V re[4] = {a[0].re, a[1].re, a[2].re, a[3].re}, im[4] = {a[0].im, a[1].im, a[2].im, a[3].im};
    interleave<kStride>(re);
    interleave<kStride>(im);
    for (int k = 0; k < 4; ++k) write(out, 4 * i + k * kLanesOf<V>, Complex<V>{re[k], im[k]});
  }
}

/// Any radix, by the definition. The roots are those of the whole circle, of `size`.
template <typename T>
TASK_AWARE_INLINE void general_stage(const Transform<T>& transform, const FftStage& stage) {
  const int64_t radix = stage.radix, stride = stage.stride, size = transform.size;
  const int64_t groups = stage.length / radix, apart = size / radix;
  const T *cosines = transform.cosines + stage.roots, *sines = transform.sines + stage.roots;
  for (int64_t p = 0; p < groups; ++p) {
    for (int64_t j = 0; j < radix; ++j) {
      T* out_re = transform.out.re + (p * radix + j) * stride;
      T* out_im = transform.out.im + (p * radix + j) * stride;
      std::fill(out_re, out_re + stride, T(0));
      std::fill(out_im, out_im + stride, T(0));
      for (int64_t k = 0; k < radix; ++k) {
        const int64_t angle = (j * k % radix * apart + p * j * stride) % size;
        const T c = cosines[angle], s = sines[angle];
        const T* in_re = transform.in.re + p * stride + k * apart;
        const T* in_im = transform.in.im + p * stride + k * apart;
        TASK_AWARE_IVDEP
        for (int64_t q = 0; q < stride; ++q) {
          out_re[q] += in_re[q] * c - in_im[q] * s;
          out_im[q] += in_re[q] * s + in_im[q] * c;
        }
      }
    }
  }
}

template <typename V, typename T = scalar_t<V>>
TASK_AWARE_INLINE void strided_stage_of_radix(const Transform<T>& transform, const FftStage& stage) {
  switch (stage.radix) {
    case 2:
      return strided_stage<2, V>(transform, stage);
    case 3:
      return strided_stage<3, V>(transform, stage);
    case 4:
      return strided_stage<4, V>(transform, stage);
    case 5:
      return strided_stage<5, V>(transform, stage);
    default:
      return general_stage(transform, stage);
  }
}

template <typename T>
struct RunTransform {
  template <int kBytes>
  static TASK_AWARE_INLINE void run(const Transform<T>& whole) {
    constexpr int kLanes = kBytes / sizeof(T);
    using V = vector_t<T, kLanes>;
    Transform<T> transform = whole;
    for (const FftStage& stage : whole.stages) {
      const bool whole_vectors = stage.radix == 4 && whole.size / 4 % kLanes == 0;
      if (stage.stride % kLanes == 0) {
        strided_stage_of_radix<V>(transform, stage);
      } else if (whole_vectors && stage.stride == 1) {
        interleaved_stage<1, V>(transform, stage);
      } else if (kLanes > 4 && whole_vectors && stage.stride == 4) {
        if constexpr (kLanes > 4) interleaved_stage<4, V>(transform, stage);
      } else {
        strided_stage_of_radix<T>(transform, stage);
      }
      std::swap(transform.in, transform.out);
    }
  }
};

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

/// exp(-2 pi i k / size), from angles of the first quadrant in double: exact symmetry, no large arguments.
Complex<double> root_of_unity(int64_t k, int64_t size) {
  k %= size;
  const int64_t quadrant = 4 * k / size;
  const double angle =
      std::numbers::pi / 2 * static_cast<double>(4 * k - quadrant * size) / static_cast<double>(size);
  const double c = std::cos(angle), s = std::sin(angle);
  const double cosine[4] = {c, -s, -c, s}, sine[4] = {s, c, -s, -c};
  return {cosine[quadrant], -sine[quadrant]};
}

}  // namespace

template <typename T>
FftPlan<T>::FftPlan(int64_t size) : size_(size) {
  const auto append = [this](Complex<double> root) {
    cosines_.push_back(static_cast<T>(root.re));
    sines_.push_back(static_cast<T>(root.im));
  };
  int64_t stride = 1;
  for (const int64_t radix : factors(size)) {
    const int64_t length = size / stride, repeats = stride < kWidestVector ? stride : 1;
    stages_.push_back({radix, length, stride, static_cast<int64_t>(cosines_.size()), repeats});
    if (radix > 5) {
      for (int64_t k = 0; k < size; ++k) append(root_of_unity(k, size));
    } else {
      for (int64_t j = 1; j < radix; ++j) {
        for (int64_t i = 0; i < length / radix * repeats; ++i)
          append(root_of_unity(j * (i / repeats), length));
      }
    }
    stride *= radix;
  }
}

template <typename T>
SplitComplex<T> FftPlan<T>::transform(SplitComplex<T> data, SplitComplex<T> work) const {
  run_vectorised<RunTransform<T>>(Transform<T>{data, work, stages_, cosines_.data(), sines_.data(), size_});
  return stages_.size() % 2 == 0 ? data : work;
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
  int64_t best = kVectorFriendly;
  while (best < minimum) best *= 2;
  for (int64_t five = kVectorFriendly; five < best; five *= 5) {
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
