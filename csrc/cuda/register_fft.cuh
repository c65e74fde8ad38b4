#pragma once

// The FFT of one thread block whose size is known to the compiler: kPoints values, kValues of them in the registers of
// each thread, in passes of radix 16 that meet in shared memory.
//
// forward   decimation in frequency: reads in natural order, hands each thread kValues bins of an order of its own
// inverse   decimation in time, its mirror image: from that order to kPoints times the signal
// A convolution multiplies between the two: in registers, and never in the natural order.
//
// Traffic in shared memory: kPoints values written and read once per pass; the first pass of `forward` reads, and
// the last one of `inverse` writes, what the caller says. Element i lies at i + i / 16, so that the neighbouring
// threads of every pass find different banks.

#include "common/butterflies.h"
#include "cuda/launch.h"

namespace task_aware {

/// b[j] = sum over k of a[k] exp(-2 pi i j k / 16), in place, as 4 * 4.
template <typename T>
__device__ __forceinline__ void butterfly(Complex<T> (&a)[16]) {
  constexpr T kCosine = T(0.923879532511286756128183189396788933);  // cos(pi / 8)
  constexpr T kSine = T(0.382683432365089771728459984030398866);    // sin(pi / 8)
  constexpr T kRoot = T(0.707106781186547524400844362104849039);    // sqrt(1 / 2)
  constexpr Complex<T> kTurns[10] = {{1, 0},           {kCosine, -kSine},
                                     {kRoot, -kRoot},  {kSine, -kCosine},
                                     {0, -1},          {0, 0},
                                     {-kRoot, -kRoot}, {0, 0},
                                     {0, 0},           {-kCosine, kSine}};  // exp(-2 pi i m / 16)
  Complex<T> columns[4][4];
#pragma unroll
  for (int n = 0; n < 4; ++n) {
    Complex<T>(&column)[4] = columns[n];
#pragma unroll
    for (int k = 0; k < 4; ++k) column[k] = a[n + 4 * k];
    butterfly(column);
#pragma unroll
    for (int k = 1; k < 4; ++k) {
      if (n > 0) column[k] = column[k] * kTurns[n * k];
    }
  }
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    Complex<T> row[4] = {columns[0][k], columns[1][k], columns[2][k], columns[3][k]};
    butterfly(row);
#pragma unroll
    for (int n = 0; n < 4; ++n) a[4 * n + k] = row[n];
  }
}

/// What a butterfly of 16 turns by: the powers 1, 2, 3, 4, 8 and 12 of a root of unity, each rounded once.
template <typename T>
struct alignas(16) Roots {
  static constexpr int kCount = 6;
  Complex<T> fine[3], coarse[3];

  /// The power that entry k has.
  __host__ __device__ static constexpr int power(int k) { return k < 3 ? k + 1 : 4 * (k - 2); }
};

template <typename T, int kPoints_>
class RegisterFft {
 public:
  static constexpr int kPoints = kPoints_;
  static constexpr int kThreads = kPoints / 16 < 512 ? kPoints / 16 : 512;
  static constexpr int kValues = kPoints / kThreads;
  static constexpr size_t kSharedBytes = (kPoints + kPoints / 16) * sizeof(Complex<T>);

  /// `roots` [kPoints / 16]: those of exp(-2 pi i k / kPoints).
  __device__ RegisterFft(void* shared, const Roots<T>* roots)
      : shared_(static_cast<Complex<T>*>(shared)), roots_(roots) {}

  /// visit(v, bin) for this thread's bins v, after read(i) of all kPoints values. Where those are all zero, nothing
  /// is visited, and the result is false, in every thread.
  template <typename Read, typename Visit>
  __device__ __forceinline__ bool forward(Read read, Visit visit) {
    __syncthreads();  // whoever still reads from the last transform
    bool sounds = false;
    pass<kPoints, false>(
        [&](int first, int further) {
          const Complex<T> value = read(first + further);
          sounds |= value.re != T(0) || value.im != T(0);
          return value;
        },
        InShared{this});
    if (!__syncthreads_or(sounds)) return false;
    forward_passes<kPoints / kRadix>();
#pragma unroll
    for (int group = 0; group < kValues / kLast; ++group) {
      Complex<T> a[kLast];
#pragma unroll
      for (int k = 0; k < kLast; ++k) a[k] = at(last(group), k);
      if constexpr (kLast > 1) butterfly(a);
#pragma unroll
      for (int k = 0; k < kLast; ++k) visit(group * kLast + k, a[k]);
    }
    return true;
  }

  /// write(i, value) for this thread's part of the upper half, i >= kPoints / 2, given its bins.
  template <typename Write>
  __device__ __forceinline__ void inverse(const Complex<T> (&bins)[kValues], Write write) {
    // the conjugate of the forward transform of the conjugates
#pragma unroll
    for (int group = 0; group < kValues / kLast; ++group) {
      Complex<T> a[kLast];
#pragma unroll
      for (int k = 0; k < kLast; ++k) a[k] = conjugate(bins[group * kLast + k]);
      if constexpr (kLast > 1) butterfly(a);
#pragma unroll
      for (int k = 0; k < kLast; ++k) at(last(group), k) = a[k];
    }
    __syncthreads();
    inverse_passes<kRadix * kLast>();
    pass<kPoints, true>(InShared{this}, [&](int first, int further, Complex<T> value) {
      if (further >= kPoints / 2) write(first + further, conjugate(value));
    });
  }

  /// visit(i) for the i that `inverse` writes in this thread.
  template <typename Visit>
  __device__ __forceinline__ static void for_upper_half(Visit visit) {
    for (int i = threadIdx.x; i < kPoints / kRadix; i += kThreads) {
      for (int k = kRadix / 2; k < kRadix; ++k) visit(i + k * (kPoints / kRadix));
    }
  }

 private:
  static constexpr int kRadix = 16;

  static constexpr int rest_of(int points) { return points >= kRadix ? rest_of(points / kRadix) : points; }
  static constexpr int kLast = rest_of(kPoints);  // the radix of what the passes of 16 leave: 1, 2 or 4
  static_assert(kLast == 1 || kLast == 2 || kLast == 4);

  /// Element first + further, where `further` is known to the compiler and never carries: for all passes here,
  /// first % 16 + further % 16 < 16.
  __device__ __forceinline__ Complex<T>& at(unsigned first, int further) {
    return shared_[padded(first) + padded(further)];
  }
  __host__ __device__ static constexpr unsigned padded(unsigned i) { return i + i / 16; }
  __device__ static unsigned last(int group) { return (threadIdx.x + group * kThreads) * kLast; }

  /// Values of a pass that come from, or go to, shared memory.
  struct InShared {
    RegisterFft* fft;
    __device__ __forceinline__ Complex<T> operator()(unsigned first, int further) const {
      return fft->at(first, further);
    }
    __device__ __forceinline__ void operator()(unsigned first, int further, Complex<T> value) const {
      fft->at(first, further) = value;
    }
  };

  /// One butterfly of 16 for every 16 values that lie kLength / 16 apart, in transforms of kLength. Turning by the
  /// roots comes after it (in frequency), or before it (in time).
  template <int kLength, bool kInTime, typename Read, typename Write>
  __device__ __forceinline__ void pass(Read read, Write write) {
    constexpr int kApart = kLength / kRadix;
#pragma unroll 1  // two butterflies at a time have no room in the registers
    for (int m = 0; m < kValues / kRadix; ++m) {
      const unsigned i = threadIdx.x + m * kThreads, offset = i % kApart,
                     first = (i - offset) * kRadix + offset;
      Complex<T> a[kRadix];
#pragma unroll
      for (int k = 0; k < kRadix; ++k) a[k] = read(first, k * kApart);
      if constexpr (kInTime) turn(a, offset * (kPoints / kLength));
      butterfly(a);
      if constexpr (!kInTime) turn(a, offset * (kPoints / kLength));
#pragma unroll
      for (int k = 0; k < kRadix; ++k) write(first, k * kApart, a[k]);
    }
  }

  template <int kLength>
  __device__ __forceinline__ void forward_passes() {
    if constexpr (kLength >= kRadix) {
      pass<kLength, false>(InShared{this}, InShared{this});
      __syncthreads();
      forward_passes<kLength / kRadix>();
    }
  }

  template <int kLength>
  __device__ __forceinline__ void inverse_passes() {
    if constexpr (kLength < kPoints) {
      pass<kLength, true>(InShared{this}, InShared{this});
      __syncthreads();
      inverse_passes<kLength * kRadix>();
    }
  }

  /// a[j] times the power j of root `k`.
  __device__ __forceinline__ void turn(Complex<T> (&a)[kRadix], unsigned k) const {
    const Roots<T>& roots = roots_[k];
#pragma unroll
    for (int r = 1; r < 4; ++r) a[r] = a[r] * roots.fine[r - 1];
#pragma unroll
    for (int c = 1; c < 4; ++c) {
      const Complex<T> coarse = roots.coarse[c - 1];
      a[4 * c] = a[4 * c] * coarse;
#pragma unroll
      for (int r = 1; r < 4; ++r) a[4 * c + r] = a[4 * c + r] * (coarse * roots.fine[r - 1]);
    }
  }

  Complex<T>* shared_;
  const Roots<T>* roots_;
};

}  // namespace task_aware
