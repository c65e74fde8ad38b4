#pragma once

// Runs CUDA kernels on the host: blocks one after the other, the threads of a block as fibres of one operating
// system thread. A fibre runs until it needs another one (a barrier, an exchange within its warp) or returns;
// which one runs next is the schedule: 0 takes the first that could go on, 1 the last, others one at random;
// so with the blocks.
//
// Every launch is repeated under several schedules from the same memory. A kernel whose result depends on the
// schedule has a race, which is an exception that says so, naming kernel, block and thread; so is one that cannot
// go on.

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

/// Throws std::runtime_error of the message and of kernel, block and thread. A fibre that calls it never goes on.
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

/// Each launch is run under schedules first .. first + count - 1.
void set_schedules(int first, int count);

/// The most shared memory that a block may have: that of sm_90 unless it is set.
size_t shared_limit();
void set_shared_limit(size_t bytes);

/// What kernels believe to be compiled for: 90 unless it is set.
int architecture();
void set_architecture(int architecture);

/// Has a sanitizer's report, which ends in abort(), end with kernel, block and thread.
void report_aborts();

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
