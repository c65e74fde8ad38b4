#include "execution.h"

#include <signal.h>

#include <algorithm>
#include <array>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <numeric>
#include <string>
#include <vector>

#include "block.h"

namespace cuda_host {
namespace {

constexpr unsigned int kMaxThreads = 1024;
constexpr std::align_val_t kAlignment{256};  // that of cudaMalloc

struct Memory {
  const char* name;
  char* begin;
  size_t bytes;
};

std::vector<Memory> device;
int first_schedule = 0, schedules = 1;
size_t max_shared_bytes = 227 * 1024;
int compiled_for = 90;

using Line = std::array<char, 500>;

/// Where the launch is, or nothing between launches; without allocating, for on_abort.
Line place() {
  Line text{};
  if (running.kernel == nullptr) return text;
  const int length = std::snprintf(text.data(), text.size(), "cuda_host: in %s, schedule %d", running.kernel,
                                   running.schedule);
  describe_thread(text.data() + length, text.size() - length);
  return text;
}

void on_abort(int) {
  std::fputs(place().data(), stderr);
  std::_Exit(1);
}

struct SharedMemory {
  explicit SharedMemory(size_t bytes) { running.shared_memory = ::operator new(bytes, kAlignment); }
  ~SharedMemory() { ::operator delete(running.shared_memory, kAlignment); }
};

struct OneLaunch {
  explicit OneLaunch(const char* kernel) { running.kernel = kernel; }
  ~OneLaunch() { running.kernel = nullptr; }
};

void check_limits(const Grid& grid) {
  const dim3& blocks = grid.blocks;
  if (blocks.x < 1 || blocks.x > 0x7fffffffu || blocks.y < 1 || blocks.y > 65535 || blocks.z < 1 ||
      blocks.z > 65535) {
    fail("a grid of (%u,%u,%u) blocks cannot be launched", blocks.x, blocks.y, blocks.z);
  }
  if (grid.threads < 1 || grid.threads > kMaxThreads) {
    fail("a block of %u threads cannot be launched", grid.threads);
  }
  if (grid.shared_bytes > max_shared_bytes)
    fail("%zu bytes of shared memory cannot be had", grid.shared_bytes);
}

void run_grid(int schedule) {
  running.schedule = schedule;
  running.random.seed(schedule);
  std::vector<uint64_t> order(uint64_t{gridDim.x} * gridDim.y * gridDim.z);
  std::iota(order.begin(), order.end(), uint64_t{0});
  if (schedule == 1) std::reverse(order.begin(), order.end());
  if (schedule > 1) std::shuffle(order.begin(), order.end(), running.random);
  for (const uint64_t block : order) {
    blockIdx = dim3(block % gridDim.x, block / gridDim.x % gridDim.y, block / gridDim.x / gridDim.y);
    run_block();
  }
}

using Content = std::vector<std::vector<char>>;

Content read_device() {
  Content content;
  for (const Memory& memory : device) content.emplace_back(memory.begin, memory.begin + memory.bytes);
  return content;
}

void write_device(const Content& content) {
  for (size_t k = 0; k < device.size(); ++k) {
    std::copy(content[k].begin(), content[k].end(), device[k].begin);
  }
}

void check_same(const Content& first, const Content& now) {
  for (size_t k = 0; k < device.size(); ++k) {
    if (first[k] == now[k]) continue;
    const auto at = std::mismatch(first[k].begin(), first[k].end(), now[k].begin()).first - first[k].begin();
    fail("a race: schedules %d and %d leave different results, first at byte %td of %s", first_schedule,
         running.schedule, at, device[k].name);
  }
}

}  // namespace

void run_kernel(const Grid& grid, Body body, const void* params) {
  const OneLaunch launch(grid.kernel);
  running.body = body;
  running.params = params;
  running.threads = grid.threads;
  running.shared_bytes = grid.shared_bytes;
  gridDim = grid.blocks;
  blockDim = dim3(grid.threads);
  check_limits(grid);

  const Content before = read_device();
  Content first;
  for (int schedule = first_schedule; schedule < first_schedule + schedules; ++schedule) {
    write_device(before);
    const SharedMemory memory(grid.shared_bytes);
    run_grid(schedule);
    if (schedule == first_schedule) first = read_device();
    check_same(first, read_device());
  }
}

void set_schedules(int first, int count) {
  first_schedule = first;
  schedules = count;
}

size_t shared_limit() { return max_shared_bytes; }

void set_shared_limit(size_t bytes) { max_shared_bytes = bytes; }

int architecture() { return compiled_for; }

void set_architecture(int architecture) { compiled_for = architecture; }

void report_aborts() { signal(SIGABRT, on_abort); }

void* device_memory(const char* name, size_t bytes) {
  void* begin = ::operator new(bytes, kAlignment);
  std::memset(begin, kUnwritten, bytes);
  device.push_back({name, static_cast<char*>(begin), bytes});
  return begin;
}

void free_device_memory() {
  for (const Memory& memory : device) ::operator delete(memory.begin, kAlignment);
  device.clear();
}

bool is_device_memory(const void* address) {
  const auto* byte = static_cast<const char*>(address);
  return std::any_of(device.begin(), device.end(), [=](const Memory& memory) {
    return byte >= memory.begin && byte < memory.begin + memory.bytes;
  });
}

void fail(const char* format, ...) {
  Line message;
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(message.data(), message.size(), format, arguments);
  va_end(arguments);
  stop(std::string("cuda_host: ") + message.data() + "\n" + place().data());
}

}  // namespace cuda_host
