// Kernels of known results, one for each thing that device.h defines.

#include "case.h"
#include "cuda/launch.h"
#include "cuda/mma.cuh"

using namespace task_aware;

namespace {

constexpr uint32_t kAll = 0xffffffffu;

/// out[i] = in[last - i] of each block, through static shared memory.
__global__ void reverse(const int* in, int* out) {
  __shared__ int shared[256];
  const int first = blockIdx.x * blockDim.x;
  shared[threadIdx.x] = in[first + threadIdx.x];
  __syncthreads();
  out[first + threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
}

/// The sum of the block's values in all of its elements, by halving in dynamic shared memory.
__global__ void block_sum(const int* in, int* out) {
  int* shared = static_cast<int*>(dynamic_shared_memory());
  shared[threadIdx.x] = in[blockIdx.x * blockDim.x + threadIdx.x];
  __syncthreads();
  for (unsigned int half = blockDim.x / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
    __syncthreads();
  }
  out[blockIdx.x * blockDim.x + threadIdx.x] = shared[0];
}

/// Shared memory as a block finds it, before it leaves something there.
__global__ void unwritten(const int*, int* out) {
  __shared__ int fixed[4];
  int* dynamic = static_cast<int*>(dynamic_shared_memory());
  out[2 * blockIdx.x] = fixed[3];
  out[2 * blockIdx.x + 1] = dynamic[0];
  fixed[3] = dynamic[0] = 7;
}

/// out[8 i ..] = what thread i receives from each exchange.
__global__ void exchanges(const int* in, int* out) {
  const int value = in[threadIdx.x];
  int* mine = out + 8 * threadIdx.x;
  mine[0] = __shfl_xor_sync(kAll, value, 1);
  mine[1] = __shfl_down_sync(kAll, value, 3);
  mine[2] = __shfl_up_sync(kAll, value, 3, 8);
  mine[3] = __shfl_sync(kAll, value, 5, 16);
  mine[4] = static_cast<int>(__ballot_sync(kAll, value % 3 == 0));
  mine[5] = __any_sync(kAll, value == 7) + 10 * __all_sync(kAll, value >= 0);
  mine[6] = __reduce_add_sync(kAll, value) + __reduce_max_sync(kAll, value) - __reduce_min_sync(kAll, value);
  mine[7] = static_cast<int>(__shfl_xor_sync(kAll, 1.5 * value, 2) * 2);  // eight bytes
}

/// Even and odd lanes exchange apart from each other; in the second warp only half of the lanes exist.
__global__ void halves(const int* in, int* out) {
  const bool odd = threadIdx.x % 2;
  const uint32_t mask = (odd ? 0xaaaaaaaau : 0x55555555u) & (threadIdx.x < 32 ? kAll : 0xffffu);
  int sum = in[threadIdx.x];
  if (odd) sum = __reduce_add_sync(mask, sum);
  if (!odd) sum = -__reduce_add_sync(mask, sum);
  out[threadIdx.x] = sum;
}

/// Each lane reads its neighbour's element of shared memory, many times over.
__global__ void warp_barriers(const int* in, int* out) {
  __shared__ int shared[64];
  int value = in[threadIdx.x];
  const int warp = threadIdx.x / 32 * 32, next = warp + (threadIdx.x + 1) % 32;
  for (int round = 0; round < 5; ++round) {
    shared[threadIdx.x] = value;
    __syncwarp();
    value = shared[next] + 1;
    __syncwarp();
  }
  out[threadIdx.x] = value;
}

/// out[0..3] = a histogram; [4] = the largest, [5] = sum by the last block to finish, which [6] names as last.
__global__ void atomics(const int* in, int* out) {
  __shared__ bool last;
  const int value = in[blockIdx.x * blockDim.x + threadIdx.x];
  atomicAdd(&out[value & 3], 1);
  atomicMax(&out[4], value);
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicInc(reinterpret_cast<unsigned int*>(&out[7]), gridDim.x - 1) == gridDim.x - 1;
  }
  __syncthreads();
  if (last && threadIdx.x == 0) {
    out[5] = out[0] + out[1] + out[2] + out[3];
    out[6] = atomicCAS(&out[6], 0, 1) == 0;
  }
}

/// Vectors of four, a grid of three dimensions, and intrinsics.
__global__ void the_rest(const int* in, int* out) {
  const int4 four = reinterpret_cast<const int4*>(in)[threadIdx.x];
  const int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  int* mine = out + 4 * (block * blockDim.x + threadIdx.x);
  mine[0] = four.x + four.y + four.z + four.w;
  mine[1] = __ldg(in + threadIdx.x);
  mine[2] = __popc(four.w) + 100 * __clz(four.w) + 10000 * __ffs(four.w);
  mine[3] = __float2int_rn(1000 * __expf(0.5f)) + static_cast<int>(rsqrtf(4.0f) * 2000000) + warpSize;
}

/// Each lane's words of a, of b, and its floats of the sum -> those floats, of a warp's product.
template <bool kBfloat16>
__global__ void product(const int* in, int* out) {
  const int* mine = in + 10 * threadIdx.x;
  const auto word = [&](int k) { return static_cast<unsigned int>(mine[k]); };
  float sum[4];
  for (int i = 0; i < 4; ++i) sum[i] = __int_as_float(mine[6 + i]);
  const uint4 a{word(0), word(1), word(2), word(3)};
  const uint2 b{word(4), word(5)};
  kBfloat16 ? multiply_add_bfloat16(sum, a, b) : multiply_add_tf32(sum, a, b);
  for (int i = 0; i < 4; ++i) out[4 * threadIdx.x + i] = __float_as_int(sum[i]);
}

void run(cuda_host::Case& test) {
  const int* in = test.array<int>("in");
  int* out = test.output<int>("out", test.integer("count"));
  if (const int* before = test.array<int>("before")) std::copy(before, before + test.integer("count"), out);
  const std::string& name = test.word("operation");
  const auto kernel = name == "reverse"         ? reverse
                      : name == "block_sum"     ? block_sum
                      : name == "unwritten"     ? unwritten
                      : name == "exchanges"     ? exchanges
                      : name == "halves"        ? halves
                      : name == "warp_barriers" ? warp_barriers
                      : name == "atomics"       ? atomics
                      : name == "bfloat16"      ? product<true>
                      : name == "tf32"          ? product<false>
                                                : the_rest;
  const dim3 grid(test.integer("x"), test.integer("y"), test.integer("z"));
  const auto threads = static_cast<unsigned int>(test.integer("threads"));
  launch({name.c_str(), grid, threads, nullptr, threads * sizeof(int)}, kernel, in, out);
}

}  // namespace

int main() { return cuda_host::run_cases(run); }
