#pragma once

// A CUDA operator opens with `CudaScope scope(tensor);` and launches on `scope.stream`. Nothing waits for the
// device, so everything can be captured in a CUDA graph.

#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>

#include "common/check.h"

namespace task_aware {

/// Makes the tensor's device current while it lives and holds torch's current stream there.
class CudaScope {
 public:
  explicit CudaScope(const torch::stable::Tensor& tensor)
      : device_(tensor.get_device_index()), guard_(device_) {
    void* handle = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device_, &handle));
    stream = static_cast<cudaStream_t>(handle);
  }

  /// The most shared memory that a block of this device may have, when asked for.
  int64_t shared_bytes_of_a_block() const {
    int bytes = 0;
    const cudaError_t error =
        cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device_);
    TASK_AWARE_CHECK(error == cudaSuccess, "task_aware: cannot query the shared memory limit of GPU ",
                     device_, " (", cudaGetErrorString(error), ").");
    return bytes;
  }

  cudaStream_t stream = nullptr;

 private:
  int device_;
  torch::stable::accelerator::DeviceGuard guard_;
};

}  // namespace task_aware
