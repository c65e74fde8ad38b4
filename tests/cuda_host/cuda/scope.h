#pragma once

// csrc/cuda/scope.h for the host: tensors of the CPU stand in for those of a GPU, and the operators are registered
// for the CPU in a library of their own, from which emulation.py takes them.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include "cuda/launch.h"

namespace task_aware {

class CudaScope {
 public:
  explicit CudaScope(const torch::stable::Tensor&) {}

  int64_t shared_bytes_of_a_block() const { return static_cast<int64_t>(cuda_host::shared_limit()); }

  cudaStream_t stream = nullptr;
};

}  // namespace task_aware

// The registration lies in .data, since .bss is shared memory to compiling.py.
#undef STABLE_TORCH_LIBRARY_IMPL
#define STABLE_TORCH_LIBRARY_IMPL(name, key, library)                                                 \
  static void register_emulated(torch::stable::detail::StableLibrary&);                               \
  [[gnu::section(".data")]] static const torch::stable::detail::StableTorchLibraryInit registered(    \
      torch::stable::detail::StableLibrary::Kind::IMPL, &register_emulated, CUDA_HOST_LIBRARY, "CPU", \
      __FILE__, __LINE__);                                                                            \
  static void register_emulated(torch::stable::detail::StableLibrary& library)
