#pragma once

// The threads of one block, between execution.cpp, which says what they run, and device.h, which they call.

#include <cstddef>
#include <random>
#include <string>

#include "execution.h"

namespace cuda_host {

/// The launch that is going on.
struct Running {
  const char* kernel = nullptr;  // null between launches
  Body body;
  const void* params;
  unsigned int threads;  // of a block
  void* shared_memory;
  size_t shared_bytes;
  int schedule;
  std::mt19937 random;
};
extern Running running;

constexpr char kUnwritten = -1;  // NaN in every floating type

/// Runs the block `blockIdx`; fails if its threads wait for each other for ever.
void run_block();

/// Whether it lies in the running block's static or dynamic shared memory.
bool is_shared_memory(const void* address);

/// Throws `failure` from run_block(), or at once where no block runs.
[[noreturn]] void stop(const std::string& failure);

/// Writes which thread is running, or nothing.
void describe_thread(char* text, size_t bytes);

}  // namespace cuda_host
