// reorder: out[b,j,:] = estimates[b, permutation[b,j], :]                      estimates [B,S,N], permutation
// [B,S] backward: grad_estimates[b,i,:] = sum of grad[b,j,:] over all j with permutation[b,j] = i
//
// Traffic: B*S*N elements read and written once each way; the permutation stays in cache.
// Mapping: blockIdx.y walks the B*S rows, blockIdx.x and the threads walk the N elements of a row.
// An index outside 0..S-1 fills its row with NaN: the host is never asked to look.

#include <torch/csrc/stable/library.h>

#include <limits>

#include "common/cuda.h"

namespace task_aware {
namespace {

constexpr int kThreads = 256;
constexpr int kElementsPerThread = 8;
constexpr int64_t kMaxGridY = 65535;

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

template <bool kBackward>
Tensor launch(const Tensor& source_in, const Tensor& permutation_in) {
  TASK_AWARE_CHECK(source_in.dim() >= 2 && permutation_in.dim() == 2 &&
                       source_in.size(0) == permutation_in.size(0) &&
                       source_in.size(1) == permutation_in.size(1),
                   "reorder: the permutation must be [B,S] of the estimates' B and S.");
  TASK_AWARE_CHECK(permutation_in.scalar_type() == ScalarType::Long,
                   "reorder: the permutation must be int64.");
  TASK_AWARE_CHECK(same_device(source_in, permutation_in), "reorder: the tensors are on different devices.");
  const CudaScope scope(source_in);
  const Tensor source = torch::stable::contiguous(source_in);
  const Tensor permutation = torch::stable::contiguous(permutation_in);
  Tensor result = torch::stable::new_empty(source, source.sizes());
  if (result.numel() == 0) return result;

  const ReorderParams params{source.const_data_ptr(),
                             permutation.const_data_ptr<int64_t>(),
                             result.mutable_data_ptr(),
                             source.size(0) * source.size(1),
                             source.size(1),
                             elements_from(source, 2)};
  const dim3 grid(block_count(params.N, kThreads * kElementsPerThread),
                  static_cast<unsigned int>(std::min(params.rows, kMaxGridY)));
  dispatch_floating(source.scalar_type(), "reorder", [&]<typename T>(TypeTag<T>) {
    if constexpr (kBackward) {
      reorder_backward_kernel<T><<<grid, kThreads, 0, scope.stream>>>(params);
    } else {
      reorder_forward_kernel<T><<<grid, kThreads, 0, scope.stream>>>(params);
    }
  });
  check_launch("reorder");
  return result;
}

Tensor reorder_cuda(const Tensor& estimates, const Tensor& permutation) {
  return launch<false>(estimates, permutation);
}

Tensor reorder_backward_cuda(const Tensor& grad, const Tensor& permutation) {
  return launch<true>(grad, permutation);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(task_aware, CUDA, m) {
  m.impl("reorder", TORCH_BOX(&reorder_cuda));
  m.impl("reorder_backward", TORCH_BOX(&reorder_backward_cuda));
}

}  // namespace task_aware
