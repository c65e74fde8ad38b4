// The FFTs of csrc behind a C interface, for test_fft.py.

#include <vector>

#include "common/block_fft.h"
#include "cpu/fft.h"

using namespace task_aware;

namespace {

template <typename T>
void transform(int64_t size, int64_t lanes, T* re, T* im) {
  std::vector<T> work(2 * size * lanes);
  const SplitComplex<T> result =
      fft_plan<T>(size)->transform({re, im}, {work.data(), work.data() + size * lanes}, lanes);
  if (result.re == re) return;
  std::copy(result.re, result.re + size * lanes, re);
  std::copy(result.im, result.im + size * lanes, im);
}

}  // namespace

extern "C" {

void transform_float(int64_t size, int64_t lanes, float* re, float* im) { transform(size, lanes, re, im); }
void transform_double(int64_t size, int64_t lanes, double* re, double* im) { transform(size, lanes, re, im); }

/// What one thread block does, by one thread: data [size] to its transform in natural order and back.
void block_transform(int size, int stride, const double* twiddles, double* data, double* spectrum) {
  auto* values = reinterpret_cast<Complex<double>*>(data);
  const auto* table = reinterpret_cast<const Complex<double>*>(twiddles);
  block_fft_forward(values, table, stride, size, 0, 1);
  for (int k = 0; k < size; ++k) {
    reinterpret_cast<Complex<double>*>(spectrum)[k] = values[block_fft_position(k, size)];
  }
  block_fft_inverse(values, table, stride, size, 0, 1);
}
}
