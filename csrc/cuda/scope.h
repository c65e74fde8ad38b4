#pragma once

// A CUDA operator opens with `CudaScope scope(tensor);` and launches on `scope.stream`. Nothing waits for the
// device, so everything can be captured in a CUDA graph.

#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/tensor.h>

namespace task_aware {

/// Makes the tensor's device current while it lives and holds torch's current stream there.
class CudaScope {
 public:
  explicit CudaScope(const torch::stable::Tensor& tensor) : guard_(tensor.get_device_index()) {
    void* handle = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &handle));
    stream = static_cast<cudaStream_t>(handle);
  }

  cudaStream_t stream = nullptr;

 private:
  torch::stable::accelerator::DeviceGuard guard_;
};

}  // namespace task_aware
