#pragma once

// Rows that a warp copies between device memory and shared memory in groups of 16 bytes, wherever in a group they begin.

#include <cstdint>

#include "cuda/launch.h"
#include "cuda/vector.cuh"

namespace task_aware {
namespace {

constexpr int kLanes = 32;
constexpr int kGroupsAtOnce = 5;  // that a lane loads before it stores the first: 2560 bytes of a row

/// The place in `shared` of a row's first element, such that groups of 16 bytes are groups there too.
template <typename T>
__device__ __forceinline__ T* place_of(const T* row, unsigned char* shared) {
  return reinterpret_cast<T*>(shared + reinterpret_cast<uintptr_t>(row) % kGroupBytes);
}

/// How a row in device memory is cut: groups of 16 bytes from `head` to `tail`, single elements before and behind them.
template <typename T>
struct Cut {
  static constexpr int kGroup = kGroupBytes / sizeof(T), kStep = kLanes * kGroup;

  int head, tail, count;

  __device__ __forceinline__ Cut(const T* row, int count) : count(count) {
    const int begun = static_cast<int>(reinterpret_cast<uintptr_t>(row) % kGroupBytes / sizeof(T));
    head = min(count, (kGroup - begun) % kGroup);
    tail = head + (count - head) / kGroup * kGroup;
  }
};

/// Copies a row to shared memory; what a lane loads is in registers until the rest is on its way too.
template <typename T>
struct RowReader {
  const T* row;
  T* shared;
  Cut<T> cut;
  int lane;
  uint4 groups[kGroupsAtOnce];
  T first, last;

  __device__ __forceinline__ RowReader(const T* row, T* shared, int count, int lane)
      : row(row), shared(shared), cut(row, count), lane(lane) {}

  __device__ __forceinline__ void load_singles() {
    if (lane < cut.head) first = row[lane];
    if (cut.tail + lane < cut.count) last = row[cut.tail + lane];
  }
  __device__ __forceinline__ void store_singles() {
    if (lane < cut.head) shared[lane] = first;
    if (cut.tail + lane < cut.count) shared[cut.tail + lane] = last;
  }
  /// visit(i, t) for the lane's groups from `begin` on.
  template <typename Visit>
  __device__ __forceinline__ void for_groups(int begin, Visit visit) {
#pragma unroll
    for (int i = 0; i < kGroupsAtOnce; ++i) {
      const int t = begin + cut.head + i * Cut<T>::kStep + lane * Cut<T>::kGroup;
      if (t < cut.tail) visit(i, t);
    }
  }
  __device__ __forceinline__ void load_groups(int begin) {
    for_groups(begin, [&](int i, int t) { groups[i] = load_packed<T, Cut<T>::kGroup>(row, t); });
  }
  __device__ __forceinline__ void store_groups(int begin) {
    for_groups(begin, [&](int i, int t) { *reinterpret_cast<uint4*>(shared + t) = groups[i]; });
  }
};

template <typename T, typename... Others>
__device__ __forceinline__ void read_rows(RowReader<T>& reader, Others&... others) {
  reader.load_singles();
  (others.load_singles(), ...);
#pragma unroll 1
  for (int begin = 0; begin < reader.cut.count; begin += kGroupsAtOnce * Cut<T>::kStep) {
    reader.load_groups(begin);
    (others.load_groups(begin), ...);
    __syncwarp();  // or else nvcc lets the second row wait for the first
    reader.store_groups(begin);
    (others.store_groups(begin), ...);
  }
  reader.store_singles();
  (others.store_singles(), ...);
}

template <typename T>
__device__ __forceinline__ void write_row(T* row, const T* shared, int count, int lane) {
  constexpr int kGroup = Cut<T>::kGroup;
  const Cut<T> cut(row, count);
  if (lane < cut.head) row[lane] = shared[lane];
  if (cut.tail + lane < count) row[cut.tail + lane] = shared[cut.tail + lane];
#pragma unroll 4
  for (int t = cut.head + lane * kGroup; t < cut.tail; t += Cut<T>::kStep) {
    store<T, kGroup>(row, t, load<T, kGroup>(shared, t));
  }
}

}  // namespace
}  // namespace task_aware
