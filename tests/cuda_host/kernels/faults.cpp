// Kernels with one fault each. `in` and `out` hold a value for each of the block's 64 threads.

#include "case.h"
#include "cuda/launch.h"

using namespace task_aware;

namespace {

constexpr uint32_t kAll = 0xffffffffu;
constexpr int kThreads = 64;

__global__ void load_past_the_end(const float* in, float* out) { out[threadIdx.x] = in[threadIdx.x + 1]; }

__global__ void store_before_the_beginning(const float* in, float* out) {
  out[static_cast<int>(threadIdx.x) - 1] = in[threadIdx.x];
}

__global__ void static_shared_past_the_end(const float* in, float* out) {
  __shared__ float shared[kThreads];
  const auto put = [](float* address, float value) { *address = value; };
  put(shared + threadIdx.x + 1, in[threadIdx.x]);
  __syncthreads();
  out[threadIdx.x] = shared[threadIdx.x];
}

__global__ void dynamic_shared_past_the_end(const float* in, float* out) {
  float* shared = static_cast<float*>(dynamic_shared_memory());
  shared[threadIdx.x + 1] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = shared[threadIdx.x];
}

__global__ void misaligned_vector(const float* in, float* out) {
  if (threadIdx.x < 8) out[threadIdx.x] = reinterpret_cast<const float4*>(in + 1)[threadIdx.x].x;
}

__global__ void integer_overflow(const float* in, float* out) {
  int count = 2147483647 - static_cast<int>(in[threadIdx.x] * 0);
  out[threadIdx.x] = static_cast<float>(count + static_cast<int>(threadIdx.x));
}

__global__ void missing_barrier(const float* in, float* out) {
  __shared__ float shared[kThreads];
  shared[threadIdx.x] = in[threadIdx.x];
  out[threadIdx.x] = shared[kThreads - 1 - threadIdx.x];
}

__global__ void missing_barrier_of_a_warp(const float* in, float* out) {
  __shared__ float shared[kThreads];
  shared[threadIdx.x] = in[threadIdx.x];
  out[threadIdx.x] = shared[threadIdx.x ^ 1] + __shfl_xor_sync(kAll, in[threadIdx.x], 1);
}

/// A shuffle between the accesses makes every schedule here agree, but on a GPU it orders no memory.
__global__ void a_shuffle_is_no_barrier(const float* in, float* out) {
  __shared__ float shared[kThreads];
  shared[threadIdx.x] = in[threadIdx.x];
  const float other = __shfl_xor_sync(kAll, in[threadIdx.x], 1);
  out[threadIdx.x] = shared[threadIdx.x ^ 1] + other;
}

__global__ void blocks_at_one_place(const float* in, float* out) { out[threadIdx.x] = in[blockIdx.x]; }

__global__ void barrier_for_a_few(const float* in, float* out) {
  if (threadIdx.x < 10) __syncthreads();
  out[threadIdx.x] = in[threadIdx.x];
}

__global__ void absent_lane(const float* in, float* out) {
  if (threadIdx.x % 32 == 5) return;
  out[threadIdx.x] = __shfl_xor_sync(kAll, in[threadIdx.x], 1);
}

__global__ void own_lane_not_in_mask(const float* in, float* out) {
  out[threadIdx.x] = __shfl_xor_sync(0xffffu, in[threadIdx.x], 1);
}

__global__ void source_lane_not_in_mask(const float* in, float* out) {
  if (threadIdx.x % 32 < 16) out[threadIdx.x] = __shfl_sync(0xffffu, in[threadIdx.x], 20);
}

__global__ void too_many_threads(const float*, float*) {}

void run(cuda_host::Case& test) {
  const float* in = test.array<float>("in");
  float* out = test.output<float>("out", kThreads);
  const std::string& name = test.word("operation");
  dim3 grid(1);
  unsigned int threads = kThreads;
  void (*kernel)(const float*, float*) = nullptr;
#define FAULT(function) \
  if (name == #function) kernel = function
  FAULT(load_past_the_end);
  FAULT(store_before_the_beginning);
  FAULT(static_shared_past_the_end);
  FAULT(dynamic_shared_past_the_end);
  FAULT(misaligned_vector);
  FAULT(integer_overflow);
  FAULT(missing_barrier);
  FAULT(missing_barrier_of_a_warp);
  FAULT(a_shuffle_is_no_barrier);
  FAULT(blocks_at_one_place);
  FAULT(barrier_for_a_few);
  FAULT(absent_lane);
  FAULT(own_lane_not_in_mask);
  FAULT(source_lane_not_in_mask);
  FAULT(too_many_threads);
#undef FAULT
  if (name == "blocks_at_one_place") grid = dim3(3);
  if (name == "too_many_threads") threads = 2048;
  launch({name.c_str(), grid, threads, nullptr, kThreads * sizeof(float)}, kernel, in, out);
}

}  // namespace

int main() { return cuda_host::run_cases(run); }
