#pragma once

// The arithmetic of every FFT here, for the host and the device alike: complex numbers, and the short transforms
//   b[j] = sum over k of a[k] exp(-2 pi i j k / R),   R = 2, 3, 4, 5, in place.
// T is a number, or on the host a vector of them.

#include "common/host_device.h"
#include "common/scalar.h"

namespace task_aware {

template <typename T>
struct Complex {
  T re;
  T im;
};

template <typename T>
TASK_AWARE_HOST_DEVICE_INLINE Complex<T> operator+(Complex<T> a, Complex<T> b) {
  return {a.re + b.re, a.im + b.im};
}

template <typename T>
TASK_AWARE_HOST_DEVICE_INLINE Complex<T> operator-(Complex<T> a, Complex<T> b) {
  return {a.re - b.re, a.im - b.im};
}

template <typename T>
TASK_AWARE_HOST_DEVICE_INLINE Complex<T> operator*(Complex<T> a, Complex<T> b) {
  return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}

template <typename T>
TASK_AWARE_HOST_DEVICE_INLINE Complex<T> operator*(scalar_t<T> scale, Complex<T> a) {
  return {scale * a.re, scale * a.im};
}

template <typename T>
TASK_AWARE_HOST_DEVICE_INLINE Complex<T> conjugate(Complex<T> a) {
  return {a.re, -a.im};
}

template <typename T>
TASK_AWARE_HOST_DEVICE_INLINE Complex<T> times_minus_i(Complex<T> a) {
  return {a.im, -a.re};
}

template <typename T>
TASK_AWARE_HOST_DEVICE_INLINE void butterfly(Complex<T> (&a)[2]) {
  const Complex<T> sum = a[0] + a[1];
  a[1] = a[0] - a[1];
  a[0] = sum;
}

template <typename T>
TASK_AWARE_HOST_DEVICE_INLINE void butterfly(Complex<T> (&a)[3]) {
  constexpr scalar_t<T> kSine = scalar_t<T>(0.866025403784438646763723170752936183);  // sin(2 pi / 3)
  const Complex<T> sum = a[1] + a[2];
  const Complex<T> turned = times_minus_i(kSine * (a[1] - a[2]));
  const Complex<T> middle = a[0] - scalar_t<T>(0.5) * sum;
  a[0] = a[0] + sum;
  a[1] = middle + turned;
  a[2] = middle - turned;
}

template <typename T>
TASK_AWARE_HOST_DEVICE_INLINE void butterfly(Complex<T> (&a)[4]) {
  const Complex<T> even_sum = a[0] + a[2], even_difference = a[0] - a[2];
  const Complex<T> odd_sum = a[1] + a[3], odd_difference = times_minus_i(a[1] - a[3]);
  a[0] = even_sum + odd_sum;
  a[1] = even_difference + odd_difference;
  a[2] = even_sum - odd_sum;
  a[3] = even_difference - odd_difference;
}

template <typename T>
TASK_AWARE_HOST_DEVICE_INLINE void butterfly(Complex<T> (&a)[5]) {
  constexpr scalar_t<T> kCosine1 = scalar_t<T>(0.309016994374947424102293417182819059);   // cos(2 pi / 5)
  constexpr scalar_t<T> kCosine2 = scalar_t<T>(-0.809016994374947424102293417182819059);  // cos(4 pi / 5)
  constexpr scalar_t<T> kSine1 = scalar_t<T>(0.951056516295153572116439333379382143);     // sin(2 pi / 5)
  constexpr scalar_t<T> kSine2 = scalar_t<T>(0.587785252292473129168705954639072769);     // sin(4 pi / 5)
  const Complex<T> outer_sum = a[1] + a[4], outer_difference = a[1] - a[4];
  const Complex<T> inner_sum = a[2] + a[3], inner_difference = a[2] - a[3];
  const Complex<T> middle1 = a[0] + kCosine1 * outer_sum + kCosine2 * inner_sum;
  const Complex<T> middle2 = a[0] + kCosine2 * outer_sum + kCosine1 * inner_sum;
  const Complex<T> turned1 = times_minus_i(kSine1 * outer_difference + kSine2 * inner_difference);
  const Complex<T> turned2 = times_minus_i(kSine2 * outer_difference - kSine1 * inner_difference);
  a[0] = a[0] + outer_sum + inner_sum;
  a[1] = middle1 + turned1;
  a[2] = middle2 + turned2;
  a[3] = middle2 - turned2;
  a[4] = middle1 - turned1;
}

}  // namespace task_aware
