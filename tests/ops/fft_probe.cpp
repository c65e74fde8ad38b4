// The FFTs of csrc behind a C interface, for test_fft.py.

#include <vector>

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
}
