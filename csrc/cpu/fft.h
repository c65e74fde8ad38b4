#pragma once

// Complex FFT of any length on the CPU, for many interleaved transforms at once.
//
//   X[k] = sum over n of x[n] exp(-2 pi i n k / size)
//
// Stockham's self-sorting form: each stage reads one pair of arrays and writes another, so there is no
// reordering and the inner loop runs over neighbouring values. Real and imaginary parts lie in arrays of
// their own; element n of lane q is at [n * lanes + q]. Radices 4, 2, 3 and 5 have butterflies; other prime
// factors r cost O(r) per element. The inverse is the forward transform with real and imaginary parts
// swapped, unscaled.

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

template <typename T>
class FftPlan {
 public:
  explicit FftPlan(int64_t size);

  int64_t size() const { return size_; }

  /// Transforms `data` (size * lanes elements), using `work` of the same length; returns the one that holds
  /// the result.
  SplitComplex<T> transform(SplitComplex<T> data, SplitComplex<T> work, int64_t lanes) const;

 private:
  int64_t size_;
  std::vector<int64_t> radices_;
  std::vector<T> cosines_;  // cos(2 pi i / size)
  std::vector<T> sines_;    // -sin(2 pi i / size)
};

/// The plan of this length; the last few plans are kept.
template <typename T>
std::shared_ptr<const FftPlan<T>> fft_plan(int64_t size);

/// The smallest 2^a 3^b 5^c that is at least `minimum`.
int64_t fast_fft_length(int64_t minimum);

}  // namespace task_aware
