// reorder: out[b,j,:] = estimates[b, permutation[b,j], :]           estimates [B,S,N], permutation [B,S]
// backward: grad_estimates[b,i,:] = sum of grad[b,j,:] over all j with permutation[b,j] = i
//
// Traffic: B*S*N elements read and written once each way. One iteration of the parallel loop is one row.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <cstring>

#include "common/arguments.h"
#include "common/dispatch.h"
#include "common/parallel.h"
#include "cpu/pages.h"

namespace task_aware {
namespace {

void check_range(const int64_t* permutation, int64_t count, int64_t S) {
  for (int64_t k = 0; k < count; ++k) {
    TASK_AWARE_CHECK(permutation[k] >= 0 && permutation[k] < S, "reorder: the permutation holds ",
                     permutation[k], " at [", k / S, ",", k % S, "], expected indices from 0 to ", S - 1,
                     ".");
  }
}

Tensor reorder_cpu(const Tensor& estimates_in, const Tensor& permutation_in) {
  check_reorder_arguments(estimates_in, permutation_in);
  const Tensor estimates = torch::stable::contiguous(estimates_in);
  const Tensor permutation = torch::stable::contiguous(permutation_in);
  const int64_t B = estimates.size(0), S = estimates.size(1), N = elements_from(estimates, 2);
  const int64_t* index = permutation.const_data_ptr<int64_t>();
  check_range(index, B * S, S);

  Tensor result = new_output(estimates, estimates.sizes());
  const size_t row_bytes = N * estimates.element_size();
  const auto* source = static_cast<const char*>(estimates.const_data_ptr());
  auto* destination = static_cast<char*>(result.mutable_data_ptr());
  parallel_for(0, B * S, grain_for(N), [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      const int64_t from = row / S * S + index[row];
      std::memcpy(destination + row * row_bytes, source + from * row_bytes, row_bytes);
    }
  });
  return result;
}

Tensor reorder_backward_cpu(const Tensor& grad_in, const Tensor& permutation_in) {
  check_reorder_arguments(grad_in, permutation_in);
  const Tensor grad = torch::stable::contiguous(grad_in);
  const Tensor permutation = torch::stable::contiguous(permutation_in);
  const int64_t B = grad.size(0), S = grad.size(1), N = elements_from(grad, 2);
  const int64_t* index = permutation.const_data_ptr<int64_t>();

  Tensor result = new_output(grad, grad.sizes());
  dispatch_floating(grad.scalar_type(), "reorder", [&]<typename T>(TypeTag<T>) {
    const T* source = grad.const_data_ptr<T>();
    T* destination = result.mutable_data_ptr<T>();
    parallel_for(0, B * S, grain_for(N), [&](int64_t first, int64_t last) {
      for (int64_t row = first; row < last; ++row) {
        const int64_t b = row / S, i = row % S;
        T* out = destination + row * N;
        std::fill(out, out + N, T(0));
        for (int64_t j = 0; j < S; ++j) {
          if (index[b * S + j] != i) continue;
          const T* in = source + (b * S + j) * N;
          for (int64_t n = 0; n < N; ++n) out[n] = out[n] + in[n];
        }
      }
    });
  });
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(task_aware, m) {
  m.def("reorder(Tensor estimates, Tensor permutation) -> Tensor");
  m.def("reorder_backward(Tensor grad, Tensor permutation) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(task_aware, CPU, m) {
  m.impl("reorder", TORCH_BOX(&reorder_cpu));
  m.impl("reorder_backward", TORCH_BOX(&reorder_backward_cpu));
}

}  // namespace task_aware
