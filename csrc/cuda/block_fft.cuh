#pragma once

// The FFT of one thread block: `size` complex values (a power of two, known at run time) in shared memory, transformed
// in place by decimation in frequency: natural order in, bin k out at block_fft_position(k).
//
// `twiddles[i * twiddle_stride]` is exp(-2 pi i / size) to the power of i. Call with all kThreads threads of
// the block and synchronise before; the result is synchronised.

#include "common/butterflies.h"
#include "cuda/launch.h"

namespace task_aware {

/// The last stage, of neighbouring pairs, of a size that is 2 * 4^k.
template <int kThreads, typename T>
__device__ void block_fft_pairs(Complex<T>* data, int size) {
  for (int i = threadIdx.x; i < size / 2; i += kThreads) {
    Complex<T> a[2] = {data[2 * i], data[2 * i + 1]};
    butterfly(a);
    data[2 * i] = a[0];
    data[2 * i + 1] = a[1];
  }
  __syncthreads();
}

template <int kThreads, typename T>
__device__ void block_fft_forward(Complex<T>* data, const Complex<T>* twiddles, int twiddle_stride,
                                  int size) {
  int length = size;
  for (int step = twiddle_stride; length >= 4; length /= 4, step *= 4) {
    const int quarter = length / 4;
    for (int i = threadIdx.x; i < size / 4; i += kThreads) {
      const int offset = i & (quarter - 1);
      Complex<T>* first = data + 4 * (i - offset) + offset;
      Complex<T> a[4] = {first[0], first[quarter], first[2 * quarter], first[3 * quarter]};
      butterfly(a);
      first[0] = a[0];
      for (int j = 1; j < 4; ++j) first[j * quarter] = a[j] * twiddles[offset * j * step];
    }
    __syncthreads();
  }
  if (length == 2) block_fft_pairs<kThreads>(data, size);
}

/// Where block_fft_forward leaves bin k.
__device__ inline int block_fft_position(int k, int size) {
  int position = 0;
  for (; size >= 4; k >>= 2) {
    size /= 4;
    position += (k & 3) * size;
  }
  return size == 2 ? position + (k & 1) : position;
}

}  // namespace task_aware
