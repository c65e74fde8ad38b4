#pragma once

// Runs CUDA kernels on the host: blocks one after the other, the threads of a block as fibres of one operating
// system thread. A fibre runs until it needs another one (a barrier, an exchange within its warp) or returns;
// which one runs next is the schedule: 0 takes the first that could go on, 1 the last, others one at random;
// so with the blocks.
//
// Every launch is repeated under several schedules from the same memory. A kernel whose result depends on the
// schedule has a race, and the process ends with a sentence that names it; so does one that cannot go on.

#include <array>
#include <cstddef>
#include <cstdint>

struct dim3 {
  unsigned int x, y, z;
  constexpr dim3(unsigned int x = 1, unsigned int y = 1, unsigned int z = 1) : x(x), y(y), z(z) {}
};

// What a kernel reads, set before a fibre goes on.
extern dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace cuda_host {

constexpr int kWarpSize = 32;

/// Ends the process with "cuda_host: <kernel, block and thread>: <message>".
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

struct Grid {
  const char* kernel;
  dim3 blocks;
  unsigned int threads;
  size_t shared_bytes;
};

/// Calls body(params) in every thread of the grid.
using Body = void (*)(const void* params);
void run_kernel(const Grid& grid, Body body, const void* params);

/// Schedules under which each launch is run.
void set_schedules(int count);

/// Memory of the device: `bytes` filled with 0xff. Reading or writing outside of it is what the address
/// sanitizer reports; launches under other schedules begin with the same content.
void* device_memory(const char* name, size_t bytes);
void free_device_memory();
bool is_device_memory(const void* address);

// Called by the kernels' threads, through device.h.

void* dynamic_shared_memory();

void sync_threads();

void sync_warp(uint32_t mask);

using Lanes = std::array<uint64_t, kWarpSize>;

/// Waits for the lanes of `mask`, all in the same `operation`, and returns what each of them brought. Orders
/// no memory accesses, as on the GPU.
Lanes exchange(const char* operation, uint32_t mask, uint64_t value);

/// This thread's place in its warp.
int lane();

}  // namespace cuda_host
