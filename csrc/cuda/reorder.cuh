#pragma once

// reorder: out[b,j,:] = estimates[b, permutation[b,j], :]           estimates [B,S,N], permutation [B,S]
// backward: grad_estimates[b,i,:] = sum of grad[b,j,:] over all j with permutation[b,j] = i
//
// Traffic: B*S*N elements read and written once each way; the permutation stays in cache.
// Mapping: blockIdx.y walks the B*S rows, blockIdx.x and the threads walk the N elements of a row.
// An index outside 0..S-1 fills its row with NaN: the host is never asked to look.

#include <limits>

#include "common/accumulate.h"
#include "cuda/grid.h"
#include "cuda/launch.h"

namespace task_aware {
namespace {

constexpr int kThreads = 256;
constexpr int kElementsPerThread = 8;

struct ReorderParams {
  const void* source;
  const int64_t* permutation;
  void* destination;
  int64_t rows;  // B*S
  int64_t S;
  int64_t N;
};

template <typename T>
__global__ void __launch_bounds__(kThreads) reorder_forward_kernel(ReorderParams p) {
  const auto* source = static_cast<const T*>(p.source);
  auto* destination = static_cast<T*>(p.destination);
  for (int64_t row = blockIdx.y; row < p.rows; row += gridDim.y) {
    const int64_t from = p.permutation[row];
    const bool valid = from >= 0 && from < p.S;
    const T* in = source + (row / p.S * p.S + (valid ? from : 0)) * p.N;
    T* out = destination + row * p.N;
    for (int64_t n = blockIdx.x * int64_t{kThreads} + threadIdx.x; n < p.N;
         n += int64_t{kThreads} * gridDim.x) {
      out[n] = valid ? in[n] : T(std::numeric_limits<float>::quiet_NaN());
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) reorder_backward_kernel(ReorderParams p) {
  const auto* source = static_cast<const T*>(p.source);
  auto* destination = static_cast<T*>(p.destination);
  for (int64_t row = blockIdx.y; row < p.rows; row += gridDim.y) {
    const int64_t first = row / p.S * p.S, i = row % p.S;
    for (int64_t n = blockIdx.x * int64_t{kThreads} + threadIdx.x; n < p.N;
         n += int64_t{kThreads} * gridDim.x) {
      accumulate_t<T> sum = 0;
      for (int64_t j = 0; j < p.S; ++j) {
        if (p.permutation[first + j] == i) sum += static_cast<accumulate_t<T>>(source[(first + j) * p.N + n]);
      }
      destination[row * p.N + n] = static_cast<T>(sum);
    }
  }
}

template <typename T, bool kBackward>
void launch_reorder(const ReorderParams& p, cudaStream_t stream) {
  const dim3 grid(block_count(p.N, kThreads * kElementsPerThread),
                  static_cast<unsigned int>(std::min(p.rows, kMaxGridY)));
  if constexpr (kBackward) {
    launch({"reorder_backward_kernel", grid, kThreads, stream}, reorder_backward_kernel<T>, p);
  } else {
    launch({"reorder_forward_kernel", grid, kThreads, stream}, reorder_forward_kernel<T>, p);
  }
}

}  // namespace
}  // namespace task_aware
