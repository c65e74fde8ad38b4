#pragma once

// csrc/cuda/launch.h for the host: the same interface, and behind it a block's threads as fibres.

#include <type_traits>

#include "device.h"
#include "execution.h"

namespace task_aware {

using cudaStream_t = void*;

struct Launch {
  const char* kernel;
  dim3 grid;
  unsigned int threads;
  cudaStream_t stream;
  size_t shared_bytes = 0;
};

template <typename... Params>
void launch(const Launch& how, void (*kernel)(Params...), const std::type_identity_t<Params>&... params) {
  const auto call = [&] { kernel(params...); };
  cuda_host::run_kernel(
      {how.kernel, how.grid, how.threads, how.shared_bytes},
      [](const void* params) { (*static_cast<const decltype(call)*>(params))(); }, &call);
}

template <typename... Params>
int architecture_of(void (*)(Params...)) {
  return cuda_host::architecture();
}

inline void* dynamic_shared_memory() { return cuda_host::dynamic_shared_memory(); }

}  // namespace task_aware
