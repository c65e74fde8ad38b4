// One warp whose lanes each read one place of shared or global memory: lane i that of `places` [32], none where it is
// negative; `bytes` at a time.

#include "case.h"
#include "cuda/launch.h"

using namespace task_aware;

namespace {

template <typename T>
__global__ void read_shared(const int* places, const T*) {
  const T* shared = static_cast<const T*>(dynamic_shared_memory());
  if (places[threadIdx.x] >= 0) [[maybe_unused]]
    const T value = shared[places[threadIdx.x]];
}

template <typename T>
__global__ void read_global(const int* places, const T* data) {
  if (places[threadIdx.x] >= 0) [[maybe_unused]]
    const T value = data[places[threadIdx.x]];
}

template <typename T>
void run_as(cuda_host::Case& test) {
  const T* data = test.output<T>("data", 1024);
  const bool shared = test.word("operation") == "read_shared";
  launch({test.word("operation").c_str(), 1, 32, nullptr, 1024 * sizeof(T)},
         shared ? read_shared<T> : read_global<T>, test.array<int>("places"), data);
}

void run(cuda_host::Case& test) {
  const int64_t bytes = test.integer("bytes");
  bytes == 4 ? run_as<float>(test) : bytes == 8 ? run_as<float2>(test) : run_as<float4>(test);
}

}  // namespace

int main() { return cuda_host::run_cases(run); }
