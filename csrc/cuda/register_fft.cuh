#pragma once

// The FFT of one thread block whose size is known to the compiler: kPoints values, kValues of them in the registers of
// each of kThreads threads, in passes of radix 16 that meet in shared memory.
//
// forward   decimation in frequency: `begin` reads in natural order, `end` hands each thread kValues bins, bin_of(v)
// inverse   decimation in time, its mirror image: from that order to kPoints times the signal
// A convolution multiplies between the two: in registers, and never in the natural order.
//
// Traffic in shared memory: kPoints values written and read once per pass; the first pass of `forward` reads, and
// the last one of `inverse` writes, what the caller says. Element i lies at i + i / 16, so that the neighbouring
// threads of every pass find different banks. Roots of unity come from a table that holds, for each pass, what
// neighbouring threads turn by side by side: a warp reads whole lines of it.
//
// A block may run several transforms at once, each with a memory and kThreads threads of its own; they pass the
// barriers, which are those of the block, together.

#include "common/butterflies.h"
#include "cuda/launch.h"
#include "cuda/vector.cuh"

namespace task_aware {

/// b[j] = sum over k of a[k] exp(-2 pi i j k / 8), in place, as 2 * 4.
template <typename T>
__device__ __forceinline__ void butterfly(Complex<T> (&a)[8]) {
  constexpr T kRoot = T(0.707106781186547524400844362104849039);  // sqrt(1 / 2)
  Complex<T> even[4] = {a[0], a[2], a[4], a[6]}, odd[4] = {a[1], a[3], a[5], a[7]};
  butterfly(even);
  butterfly(odd);
  odd[1] = odd[1] * Complex<T>{kRoot, -kRoot};
  odd[2] = times_minus_i(odd[2]);
  odd[3] = odd[3] * Complex<T>{-kRoot, -kRoot};
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    a[k] = even[k] + odd[k];
    a[k + 4] = even[k] - odd[k];
  }
}

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

/// One complex number of device memory, in one access.
template <typename T>
__device__ __forceinline__ Complex<T> load(const Complex<T>* address) {
  const auto parts = load<T, 2>(address, 0);
  return {parts.values[0], parts.values[1]};
}
template <typename T>
__device__ __forceinline__ void store(Complex<T>* address, Complex<T> value) {
  store<T, 2>(address, 0, {{value.re, value.im}});
}

template <typename T, int kPoints_>
class RegisterFft {
  static constexpr int kRadix = 16;
  static constexpr int kTurns = 6;  // roots of a butterfly: the powers 1, 2, 3, 4, 8 and 12 of one of them

 public:
  static constexpr int kPoints = kPoints_;
  static constexpr int kThreads = kPoints / 16 < 512 ? kPoints / 16 : 512;
  static constexpr int kValues = kPoints / kThreads;
  static constexpr int kSharedValues = kPoints + kPoints / 16;
  static constexpr size_t kSharedBytes = kSharedValues * sizeof(Complex<T>);

  /// Values of the table: for each pass over L = kPoints, kPoints / 16, ... > 16 values, [power][i] of
  /// exp(-2 pi i / L) to the power of `power` * i, with the six powers and i < L / 16.
  static constexpr int kRoots = [] {
    int count = 0;
    for (int length = kPoints; length > kRadix; length /= kRadix) count += kTurns * (length / kRadix);
    return count;
  }();

  /// `thread` is this thread's number among the kThreads of its transform.
  __device__ RegisterFft(void* shared, const Complex<T>* roots, int thread)
      : shared_(static_cast<Complex<T>*>(shared)), roots_(roots), thread_(thread) {}

  /// Takes in read(i) of all kPoints values. A barrier of the caller's must follow.
  template <typename Read>
  __device__ __forceinline__ void begin(Read read) {
    __syncthreads();  // whoever still reads from the last transform
    pass<kPoints, false>([&](int first, int further) { return read(first + further); }, InShared{this});
  }

  /// visit(v, bin) for this thread's bins, v = 0 .. kValues - 1.
  template <typename Visit>
  __device__ __forceinline__ void end(Visit visit) {
    forward_passes<kPoints / kRadix>();
#pragma unroll
    for (int group = 0; group < kValues / kLast; ++group) {
      Complex<T> a[kLast];
#pragma unroll
      for (int k = 0; k < kLast; ++k) a[k] = at(last(group), k);
      if constexpr (kLast > 1) butterfly(a);
#pragma unroll
      for (int k = 0; k < kLast; ++k) visit(group * kLast + k, a[k]);
      __syncwarp();  // what `visit` loads for one more group has no room in the registers yet
    }
  }

  /// The number of the bin that `end` visits as v.
  __device__ __forceinline__ int bin_of(int v) const {
    unsigned rest = last(v / kLast) / kLast, bin = 0;  // its digits of base 16 come out in reverse
#pragma unroll
    for (int size = kRadix; size <= kPoints / kLast; size *= kRadix) {
      bin = bin * kRadix + rest % kRadix;
      rest /= kRadix;
    }
    return static_cast<int>(bin) + v % kLast * (kPoints / kLast);
  }

  /// Where value i lies in the transform's shared memory, for callers who put the bins there.
  __device__ __forceinline__ Complex<T>& at(unsigned i) { return at(i, 0); }

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
  __device__ __forceinline__ void for_upper_half(Visit visit) const {
    for (int i = thread_; i < kPoints / kRadix; i += kThreads) {
      for (int k = kRadix / 2; k < kRadix; ++k) visit(i + k * (kPoints / kRadix));
    }
  }

 private:
  static constexpr int rest_of(int points) { return points >= kRadix ? rest_of(points / kRadix) : points; }
  static constexpr int kLast = rest_of(kPoints);  // the radix of what the passes of 16 leave: 1, 2, 4 or 8

  /// Element first + further, where `further` is known to the compiler and never carries: for all passes here,
  /// first % 16 + further % 16 < 16.
  __device__ __forceinline__ Complex<T>& at(unsigned first, int further) {
    return shared_[padded(first) + padded(further)];
  }
  __host__ __device__ static constexpr unsigned padded(unsigned i) { return i + i / 16; }
  __device__ __forceinline__ unsigned last(int group) const { return (thread_ + group * kThreads) * kLast; }

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
      const unsigned i = thread_ + m * kThreads, offset = i % kApart, first = (i - offset) * kRadix + offset;
      Complex<T> a[kRadix];
#pragma unroll
      for (int k = 0; k < kRadix; ++k) a[k] = read(first, k * kApart);
      if constexpr (kInTime && kApart > 1) turn<kLength>(a, offset);
      butterfly(a);
      if constexpr (!kInTime && kApart > 1) turn<kLength>(a, offset);
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

  /// a[j] times exp(-2 pi i offset / kLength) to the power of j.
  template <int kLength>
  __device__ __forceinline__ void turn(Complex<T> (&a)[kRadix], unsigned offset) const {
    constexpr int kApart = kLength / kRadix;
    constexpr int kBefore = kRoots - RegisterFft<T, kLength>::kRoots;  // those of the passes over more values
    const Complex<T>* const roots = roots_ + kBefore + offset;
#pragma unroll
    for (int r = 1; r < 4; ++r) {
      const Complex<T> root = load(roots + (r - 1) * kApart);
#pragma unroll
      for (int c = 0; c < 4; ++c) a[4 * c + r] = a[4 * c + r] * root;
    }
#pragma unroll
    for (int c = 1; c < 4; ++c) {
      const Complex<T> root = load(roots + (c + 2) * kApart);
#pragma unroll
      for (int r = 0; r < 4; ++r) a[4 * c + r] = a[4 * c + r] * root;
    }
  }

  Complex<T>* shared_;
  const Complex<T>* roots_;
  int thread_;
};

}  // namespace task_aware
