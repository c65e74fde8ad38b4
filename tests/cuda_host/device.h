#pragma once

// What kernels may use of CUDA, in the meaning of CUDA. Anything else is an error: compiling.py refuses
// reserved names (__nanosleep, cudaMalloc, asm) that are not written here, the compiler the rest.

#include <math.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "execution.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) alignas(bytes)
// One block runs at a time, so a static variable is the block's. The build fills them with 0xff before each.
#define __shared__ static

constexpr int warpSize = cuda_host::kWarpSize;

using std::abs;
using std::isfinite;
using std::isinf;
using std::isnan;
using std::max;
using std::min;

inline void __syncthreads() { cuda_host::sync_threads(); }
inline int __syncthreads_or(int predicate) {
  static std::atomic<int> votes;
  __syncthreads();  // the last result has been read
  votes.store(0, std::memory_order_relaxed);
  __syncthreads();
  votes.fetch_or(predicate != 0, std::memory_order_relaxed);
  __syncthreads();
  return votes.load(std::memory_order_relaxed);
}
inline void __syncwarp(uint32_t mask = 0xffffffffu) { cuda_host::sync_warp(mask); }

// ---- exchange within a warp -----------------------------------------------------------------------------

namespace cuda_host {

template <typename T>
T shuffle(const char* operation, uint32_t mask, T value, int source) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move values of 4 or 8 bytes");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  const Lanes lanes = exchange(operation, mask, bits);
  if ((mask >> source & 1) == 0) fail("%s reads lane %d, which is not in its mask", operation, source);
  std::memcpy(&value, &lanes[source], sizeof(T));
  return value;
}

inline int segment_begin(int width) { return lane() / width * width; }

template <typename T, typename Combine>
T reduce(const char* operation, uint32_t mask, T value, Combine combine) {
  const Lanes lanes = exchange(operation, mask, std::bit_cast<uint32_t>(value));
  bool first = true;
  T result = value;
  for (int k = 0; k < kWarpSize; ++k) {
    if ((mask >> k & 1) == 0) continue;
    const T other = std::bit_cast<T>(static_cast<uint32_t>(lanes[k]));
    result = first ? other : combine(result, other);
    first = false;
  }
  return result;
}

}  // namespace cuda_host

template <typename T>
T __shfl_sync(uint32_t mask, T value, int source, int width = 32) {
  return cuda_host::shuffle("__shfl_sync", mask, value,
                            cuda_host::segment_begin(width) + (source & (width - 1)));
}

template <typename T>
T __shfl_xor_sync(uint32_t mask, T value, int lane_mask, int width = 32) {
  const int source = cuda_host::lane() ^ lane_mask;
  const bool inside = source < cuda_host::segment_begin(width) + width;
  return cuda_host::shuffle("__shfl_xor_sync", mask, value, inside ? source : cuda_host::lane());
}

template <typename T>
T __shfl_down_sync(uint32_t mask, T value, unsigned int distance, int width = 32) {
  const int source = cuda_host::lane() + static_cast<int>(distance);
  const bool inside = source < cuda_host::segment_begin(width) + width;
  return cuda_host::shuffle("__shfl_down_sync", mask, value, inside ? source : cuda_host::lane());
}

template <typename T>
T __shfl_up_sync(uint32_t mask, T value, unsigned int distance, int width = 32) {
  const int source = cuda_host::lane() - static_cast<int>(distance);
  const bool inside = source >= cuda_host::segment_begin(width);
  return cuda_host::shuffle("__shfl_up_sync", mask, value, inside ? source : cuda_host::lane());
}

inline uint32_t __ballot_sync(uint32_t mask, int predicate) {
  const cuda_host::Lanes lanes = cuda_host::exchange("__ballot_sync", mask, predicate != 0);
  uint32_t votes = 0;
  for (int k = 0; k < cuda_host::kWarpSize; ++k) {
    if (mask >> k & 1) votes |= static_cast<uint32_t>(lanes[k]) << k;
  }
  return votes;
}
inline int __any_sync(uint32_t mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(uint32_t mask, int predicate) { return __ballot_sync(mask, predicate) == mask; }

template <typename T>
T __reduce_add_sync(uint32_t mask, T value) {
  return cuda_host::reduce("__reduce_add_sync", mask, value, [](T a, T b) { return a + b; });
}
template <typename T>
T __reduce_min_sync(uint32_t mask, T value) {
  return cuda_host::reduce("__reduce_min_sync", mask, value, [](T a, T b) { return min(a, b); });
}
template <typename T>
T __reduce_max_sync(uint32_t mask, T value) {
  return cuda_host::reduce("__reduce_max_sync", mask, value, [](T a, T b) { return max(a, b); });
}

// ---- memory ---------------------------------------------------------------------------------------------

// Blocks and fibres take turns, so every write is seen by whoever runs later: nothing remains for a fence.
inline void __threadfence() {}
inline void __threadfence_block() {}

template <typename T>
T __ldg(const T* address) {
  return *address;
}
template <typename T>
T __ldcg(const T* address) {
  return *address;
}
template <typename T>
T __ldcs(const T* address) {
  return *address;
}
template <typename T>
void __stcs(T* address, T value) {
  *address = value;
}
template <typename T>
void __stwb(T* address, T value) {
  *address = value;
}

namespace cuda_host {

/// *address = change(*address) in one step; returns what was there.
template <typename T, typename Change>
T atomically(T* address, Change change) {
  T before, after;
  __atomic_load(address, &before, __ATOMIC_RELAXED);
  do {
    after = change(before);
  } while (!__atomic_compare_exchange(address, &before, &after, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return before;
}

}  // namespace cuda_host

template <typename T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  return cuda_host::atomically(address, [=](T old) { return old + value; });
}
template <typename T>
T atomicMin(T* address, std::type_identity_t<T> value) {
  return cuda_host::atomically(address, [=](T old) { return min(old, value); });
}
template <typename T>
T atomicMax(T* address, std::type_identity_t<T> value) {
  return cuda_host::atomically(address, [=](T old) { return max(old, value); });
}
template <typename T>
T atomicOr(T* address, std::type_identity_t<T> value) {
  return cuda_host::atomically(address, [=](T old) { return old | value; });
}
template <typename T>
T atomicExch(T* address, std::type_identity_t<T> value) {
  return cuda_host::atomically(address, [=](T) { return value; });
}
template <typename T>
T atomicCAS(T* address, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  return cuda_host::atomically(address, [=](T old) { return old == expected ? value : old; });
}
inline unsigned int atomicInc(unsigned int* address, unsigned int limit) {
  return cuda_host::atomically(address, [=](unsigned int old) { return old >= limit ? 0u : old + 1; });
}

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) double2 {
  double x, y;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned int x, y;
};
struct alignas(16) uint4 {
  unsigned int x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }

// ---- arithmetic: the float functions round to float -----------------------------------------------------

inline void sincospi(double x, double* sine, double* cosine) {
  *sine = sin(x * 3.14159265358979323846);
  *cosine = cos(x * 3.14159265358979323846);
}
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline double __fma_rn(double x, double y, double z) { return fma(x, y, z); }
inline double __dadd_rn(double x, double y) { return x + y; }
inline double __dmul_rn(double x, double y) { return x * y; }
inline unsigned int __umulhi(unsigned int x, unsigned int y) { return (uint64_t{x} * y) >> 32; }
inline int __float2int_rn(float x) { return static_cast<int>(rintf(x)); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline unsigned int __float_as_uint(float x) { return std::bit_cast<unsigned int>(x); }
inline float __uint_as_float(unsigned int x) { return std::bit_cast<float>(x); }
inline int __popc(unsigned int x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __clz(unsigned int x) { return std::countl_zero(x); }
inline int __ffs(unsigned int x) { return x == 0 ? 0 : std::countr_zero(x) + 1; }
inline unsigned int __brev(unsigned int x) {
  unsigned int reversed = 0;
  for (int k = 0; k < 32; ++k) reversed |= (x >> k & 1u) << (31 - k);
  return reversed;
}
