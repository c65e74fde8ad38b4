#pragma once

// Launch helpers. A CUDA kernel's host function opens with `CudaScope scope(tensor);` and launches on
// `scope.stream`; nothing here waits for the device, so everything can be captured in a CUDA graph.

#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include "common/check.h"
#include "common/dispatch.h"

namespace task_aware {

/// Makes the tensor's device current while it lives and holds torch's current stream there.
class CudaScope {
 public:
  explicit CudaScope(const Tensor& tensor) : guard_(tensor.get_device_index()) {
    void* handle = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &handle));
    stream = static_cast<cudaStream_t>(handle);
  }

  cudaStream_t stream = nullptr;

 private:
  torch::stable::accelerator::DeviceGuard guard_;
};

/// Call right after a launch: reports what CUDA refused.
inline void check_launch(const char* operation) {
  const cudaError_t error = cudaGetLastError();
  TASK_AWARE_CHECK(error == cudaSuccess, operation, ": the CUDA kernel could not be launched (",
                   cudaGetErrorString(error), ").");
}

/// Blocks needed for `count` items at `per_block` each, held below `limit` (kernels loop over the rest).
inline unsigned int block_count(int64_t count, int64_t per_block, int64_t limit = int64_t{1} << 20) {
  const int64_t blocks = (count + per_block - 1) / per_block;
  return static_cast<unsigned int>(blocks < 1 ? 1 : (blocks > limit ? limit : blocks));
}

}  // namespace task_aware
