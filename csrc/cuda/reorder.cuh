#pragma once

// reorder: out[b,j,:] = estimates[b, permutation[b,j], :]           estimates [B,S,N], permutation [B,S]
// backward: grad_estimates[b,i,:] = sum of grad[b,j,:] over all j with permutation[b,j] = i
//
// Traffic: B*S*N elements read and written once each way; the permutation stays in cache.
// Mapping: blockIdx.y walks the B*S rows, blockIdx.x and the threads a row's groups of 16 bytes. A thread has all its
// groups on their way before it stores the first; whom a row takes from is asked once for all of them.
// An index outside 0..S-1 fills its row with NaN: the host is never asked to look.

#include <limits>

#include "common/accumulate.h"
#include "cuda/grid.h"
#include "cuda/launch.h"
#include "cuda/vector.cuh"

namespace task_aware {
namespace {

constexpr int kThreads = 256;
constexpr int kBytesPerThread = 32;

struct ReorderParams {
  const void* source;
  const int64_t* permutation;
  void* destination;
  int64_t rows;  // B*S
  int64_t S;
  int64_t N;
};

/// A thread's groups of a row's stretch: visit(g, n) for group g, which begins with element n.
template <typename T, int kCount>
struct Groups {
  static constexpr int kPerThread = kBytesPerThread / (kCount * sizeof(T));
  static constexpr int kPerBlock = kThreads * kPerThread * kCount;  // elements

  template <typename Visit>
  __device__ static void visit(int64_t first, int64_t N, Visit visit) {
#pragma unroll
    for (int g = 0; g < kPerThread; ++g) {
      const int64_t n = first + (g * kThreads + threadIdx.x) * kCount;
      if (n < N) visit(g, n);
    }
  }
};

template <typename T, int kCount>
__global__ void __launch_bounds__(kThreads) reorder_forward_kernel(ReorderParams p) {
  using Mine = Groups<T, kCount>;
  Vector<T, kCount> nan;
  for (T& value : nan.values) value = T(std::numeric_limits<float>::quiet_NaN());
  for (int64_t row = blockIdx.y; row < p.rows; row += gridDim.y) {
    const int64_t from = p.permutation[row];
    const bool valid = from >= 0 && from < p.S;
    const int64_t source_row = (row / p.S * p.S + from) * p.N;
    for (int64_t first = int64_t{blockIdx.x} * Mine::kPerBlock; first < p.N;
         first += int64_t{gridDim.x} * Mine::kPerBlock) {
      Vector<T, kCount> groups[Mine::kPerThread];
      Mine::visit(first, p.N, [&](int g, int64_t n) {
        groups[g] = valid ? load<T, kCount>(p.source, source_row + n) : nan;
      });
      Mine::visit(first, p.N,
                  [&](int g, int64_t n) { store<T, kCount>(p.destination, row * p.N + n, groups[g]); });
    }
  }
}

template <typename T, int kCount>
__global__ void __launch_bounds__(kThreads) reorder_backward_kernel(ReorderParams p) {
  using Mine = Groups<T, kCount>;
  for (int64_t row = blockIdx.y; row < p.rows; row += gridDim.y) {
    const int64_t item = row / p.S * p.S, i = row % p.S;
    for (int64_t first = int64_t{blockIdx.x} * Mine::kPerBlock; first < p.N;
         first += int64_t{gridDim.x} * Mine::kPerBlock) {
      accumulate_t<T> sums[Mine::kPerThread][kCount] = {};
      for (int64_t j = 0; j < p.S; ++j) {
        if (p.permutation[item + j] != i) continue;
        Mine::visit(first, p.N, [&](int g, int64_t n) {
          const auto group = load<T, kCount>(p.source, (item + j) * p.N + n);
#pragma unroll
          for (int k = 0; k < kCount; ++k) sums[g][k] += static_cast<accumulate_t<T>>(group.values[k]);
        });
      }
      Mine::visit(first, p.N, [&](int g, int64_t n) {
        Vector<T, kCount> group;
#pragma unroll
        for (int k = 0; k < kCount; ++k) group.values[k] = static_cast<T>(sums[g][k]);
        store<T, kCount>(p.destination, row * p.N + n, group);
      });
    }
  }
}

template <typename T, int kCount, bool kBackward>
void launch_reorder(const ReorderParams& p, cudaStream_t stream) {
  const dim3 grid(block_count(p.N, Groups<T, kCount>::kPerBlock),
                  static_cast<unsigned int>(std::min(p.rows, kMaxGridY)));
  if constexpr (kBackward) {
    launch({"reorder_backward_kernel", grid, kThreads, stream}, reorder_backward_kernel<T, kCount>, p);
  } else {
    launch({"reorder_forward_kernel", grid, kThreads, stream}, reorder_forward_kernel<T, kCount>, p);
  }
}

template <typename T, bool kBackward>
void launch_reorder(const ReorderParams& p, cudaStream_t stream) {
  constexpr int kCount = kGroupBytes / sizeof(T);
  if (falls_into_groups<T, kCount>(p.N, {p.source, p.destination})) {
    launch_reorder<T, kCount, kBackward>(p, stream);
  } else {
    launch_reorder<T, 1, kBackward>(p, stream);
  }
}

}  // namespace
}  // namespace task_aware
