#pragma once

// Complex FFT of any length on the CPU.
//
//   X[k] = sum over n of x[n] exp(-2 pi i n k / size)
//
// Stockham's self-sorting form: each stage reads one pair of arrays and writes another, so there is no
// reordering, and reads and writes neighbouring values in vectors. Real and imaginary parts lie in arrays of
// their own. Radices 4, 2, 3 and 5 have butterflies; other prime factors r cost O(r) per element. The inverse is
// the forward transform with real and imaginary parts swapped, unscaled.

#include <cstdint>
#include <memory>
#include <vector>

namespace task_aware {

template <typename T>
struct SplitComplex {
  T* re;
  T* im;

  SplitComplex swapped() const { return {im, re}; }
};

/// One stage. With i = p * stride + q, p below length / radix and q below stride:
///   out[(p * radix + j) * stride + q] = w^(j p) * sum over k of in[i + k * size / radix] exp(-2 pi i j k / radix)
/// where w = exp(-2 pi i / length) and `length` is what the stages before leave to be transformed.
struct FftStage {
  int64_t radix;
  int64_t length;
  int64_t stride;  // the product of the radices before
  int64_t
      roots;  // where the stage's powers w^(j p) begin among the plan's: [radix-1, length/radix * repeats]
  int64_t repeats;  // of each power: `stride` where a vector may span several p, else 1
};

/// Memory for `count` arrays of `length` complex numbers, as a transform wants it: a stage reads and writes at equal
/// offsets of all of them, and addresses that agree in their last 12 bits hinder each other, as accesses that seem to
/// depend on one another and as lines of one cache set. So the arrays begin a quarter of a page apart, and a bit.
template <typename T>
class SplitArrays {
 public:
  SplitArrays(int64_t count, int64_t length)
      : distance_((length * kSize + kPage - 1) / kPage * (kPage / kSize) + kApart / kSize),
        storage_(2 * count * distance_ + kLine / kSize) {
    const auto misaligned = static_cast<int64_t>(reinterpret_cast<uintptr_t>(storage_.data()) % kLine);
    first_ = storage_.data() + (kLine - misaligned) % kLine / kSize;
  }

  SplitComplex<T> operator[](int64_t k) {
    return {first_ + 2 * k * distance_, first_ + (2 * k + 1) * distance_};
  }

 private:
  static constexpr int64_t kSize = sizeof(T), kPage = 4096, kLine = 64, kApart = kPage / 4 + 2 * kLine;

  int64_t distance_;
  std::vector<T> storage_;
  T* first_;
};

template <typename T>
class FftPlan {
 public:
  explicit FftPlan(int64_t size);

  int64_t size() const { return size_; }

  /// Transforms `data` (`size` elements), using `work` of the same length; returns the one that holds the result.
  SplitComplex<T> transform(SplitComplex<T> data, SplitComplex<T> work) const;

 private:
  int64_t size_;
  std::vector<FftStage> stages_;
  std::vector<T> cosines_;  // real parts of the roots of unity
  std::vector<T> sines_;    // imaginary parts
};

/// The plan of this length; the last few plans are kept.
template <typename T>
std::shared_ptr<const FftPlan<T>> fft_plan(int64_t size);

/// The smallest 64 * 2^a 3^b 5^c that is at least `minimum`: all of its stages work in whole vectors.
int64_t fast_fft_length(int64_t minimum);

}  // namespace task_aware
