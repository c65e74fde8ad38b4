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

/// The smallest 2^a 3^b 5^c that is at least `minimum`.
int64_t fast_fft_length(int64_t minimum);

}  // namespace task_aware
