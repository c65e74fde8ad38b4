#include "counting.h"

#if defined(CUDA_HOST_COUNTS)

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "block.h"

namespace cuda_host {
namespace {

constexpr uintptr_t kBankBytes = 4, kBanks = 32, kLineBytes = 128;

struct Access {
  const void* instruction;
  uintptr_t address;
  unsigned int bytes;
  bool shared;
};

/// What the lanes of a warp do in one instruction; 0 bytes where a lane takes no part.
using WarpAccess = std::array<Access, kWarpSize>;

std::vector<std::vector<Access>> of_thread;  // in the running block
std::map<std::string, Counts> of_kernel;

void record(const void* instruction, const void* address, unsigned int bytes) {
  if (running.kernel == nullptr) return;
  const bool shared = is_shared_memory(address);
  if (!shared && !is_device_memory(address)) return;
  if (of_thread.size() <= threadIdx.x) of_thread.resize(threadIdx.x + 1);
  of_thread[threadIdx.x].push_back({instruction, reinterpret_cast<uintptr_t>(address), bytes, shared});
}

void count_shared(const WarpAccess& access, unsigned int bytes, Counts& counts) {
  const int lanes_at_once = kWarpSize / std::max(1u, bytes / static_cast<unsigned int>(kBankBytes));
  for (int first = 0; first < kWarpSize; first += lanes_at_once) {
    std::array<std::set<uintptr_t>, kBanks> words;
    for (int lane = first; lane < first + lanes_at_once; ++lane) {
      for (uintptr_t byte = 0; byte < access[lane].bytes; byte += kBankBytes) {
        const uintptr_t word = (access[lane].address + byte) / kBankBytes;
        words[word % kBanks].insert(word);
      }
    }
    const auto fullest = std::max_element(words.begin(), words.end(),
                                          [](const auto& a, const auto& b) { return a.size() < b.size(); });
    counts.wavefronts += fullest->size();
    counts.least_wavefronts += !fullest->empty();
  }
}

void count_global(const WarpAccess& access, Counts& counts) {
  std::set<uintptr_t> lines, words;
  for (const Access& lane : access) {
    for (uintptr_t byte = 0; byte < lane.bytes; byte += kBankBytes) {
      lines.insert((lane.address + byte) / kLineBytes);
      words.insert((lane.address + byte) / kBankBytes);
    }
  }
  counts.lines += lines.size();
  counts.least_lines += (words.size() * kBankBytes + kLineBytes - 1) / kLineBytes;
}

void count_warp(unsigned int first_thread, Counts& counts) {
  std::map<std::pair<const void*, size_t>, WarpAccess> instructions;
  for (unsigned int lane = 0; lane < kWarpSize && first_thread + lane < of_thread.size(); ++lane) {
    std::map<const void*, size_t> times;
    for (const Access& access : of_thread[first_thread + lane]) {
      instructions[{access.instruction, times[access.instruction]++}][lane] = access;
    }
  }
  for (const auto& [instruction, access] : instructions) {
    const auto any =
        std::find_if(access.begin(), access.end(), [](const Access& lane) { return lane.bytes > 0; });
    any->shared ? count_shared(access, any->bytes, counts) : count_global(access, counts);
  }
}

}  // namespace

void count_block() {
  Counts& counts = of_kernel[running.kernel];
  ++counts.blocks;
  for (unsigned int first = 0; first < of_thread.size(); first += kWarpSize) count_warp(first, counts);
  for (auto& accesses : of_thread) accesses.clear();
}

std::string take_counts() {
  std::string text;
  for (const auto& [kernel, counts] : std::exchange(of_kernel, {})) {
    text += kernel;
    for (const uint64_t number :
         {counts.blocks, counts.wavefronts, counts.least_wavefronts, counts.lines, counts.least_lines}) {
      text += '\t' + std::to_string(number);
    }
    text += '\n';
  }
  return text;
}

}  // namespace cuda_host

// What the instrumented code calls.

#define ANNOUNCED(name, bytes)                                      \
  extern "C" void __tsan_##name(void* address) {                    \
    cuda_host::record(__builtin_return_address(0), address, bytes); \
  }
#define ANNOUNCED_BOTH(bytes)             \
  ANNOUNCED(read##bytes, bytes)           \
  ANNOUNCED(write##bytes, bytes)          \
  ANNOUNCED(unaligned_read##bytes, bytes) \
  ANNOUNCED(unaligned_write##bytes, bytes)
ANNOUNCED_BOTH(1)
ANNOUNCED_BOTH(2)
ANNOUNCED_BOTH(4)
ANNOUNCED_BOTH(8)
ANNOUNCED_BOTH(16)

extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_read_range(void* address, long bytes) {
  cuda_host::record(__builtin_return_address(0), address, static_cast<unsigned int>(bytes));
}
void __tsan_write_range(void* address, long bytes) {
  cuda_host::record(__builtin_return_address(0), address, static_cast<unsigned int>(bytes));
}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}

// The votes of __syncthreads_or, which are no memory on a GPU.
int __tsan_atomic32_load(const volatile int* address, int) { return *address; }
void __tsan_atomic32_store(volatile int* address, int value, int) { *address = value; }
int __tsan_atomic32_fetch_or(volatile int* address, int value, int) {
  const int before = *address;
  *address = before | value;
  return before;
}
}

#endif
