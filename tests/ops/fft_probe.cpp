// The FFTs of csrc behind a C interface, for test_fft.py.

#include <vector>

#include "cpu/fft.h"

using namespace task_aware;

namespace {

template <typename T>
void transform(int64_t size, T* re, T* im) {
  std::vector<T> work(2 * size);
  const SplitComplex<T> result = fft_plan<T>(size)->transform({re, im}, {work.data(), work.data() + size});
  if (result.re == re) return;
  std::copy(result.re, result.re + size, re);
  std::copy(result.im, result.im + size, im);
}

}  // namespace

extern "C" {

void transform_float(int64_t size, float* re, float* im) { transform(size, re, im); }
void transform_double(int64_t size, double* re, double* im) { transform(size, re, im); }
}
