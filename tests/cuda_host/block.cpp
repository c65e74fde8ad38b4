#include "block.h"

#include <array>
#include <cstdio>
#include <cstring>
#include <deque>
#include <memory>
#include <stdexcept>
#include <vector>

#include "counting.h"
#include "fibre.h"

dim3 threadIdx, blockIdx, blockDim, gridDim;

// The static shared memory of the kernels: the build gathers their zero-initialised variables here.
extern char __start_cuda_shared[] __attribute__((weak));
extern char __stop_cuda_shared[] __attribute__((weak));

namespace cuda_host {

Running running;

namespace {

enum class State { kReady, kRunning, kAtBarrier, kInWarp, kReturned, kFailed };

/// Thread `index` of every block from the first that has so many.
struct Thread {
  explicit Thread(unsigned int index);

  unsigned int index;
  Fibre fibre;
  State state;
  unsigned int barriers;  // passed so far

  // what it waits for within its warp
  const char* operation;
  uint32_t mask;
  uint64_t value;
  Lanes received;

  unsigned int first_of_warp() const { return index / kWarpSize * kWarpSize; }
};

/// The lanes of a warp that exchange values under one mask.
struct Group {
  uint32_t mask;
  unsigned int exchanges;  // so far
  char turns[2];           // stand for its barriers, as block_barrier does
};
using Warp = std::array<Group, 8>;  // the masks that it uses; the rest are 0

std::vector<std::unique_ptr<Thread>> threads;
std::vector<Warp> warps;
unsigned int at_barrier;
std::deque<Thread*> ready;
Thread* current = nullptr;  // null while no thread runs
std::string failure;        // of `current`, where its state says so

// What the thread sanitizer knows the order of events by: a block's begin, its end, and its barriers by turns.
char begin_of_block, end_of_block, block_barrier[2];

void run_threads() {
  Thread& self = *current;
  while (true) {
    after(&begin_of_block);
    running.body(running.params);
    happened_before(&end_of_block);
    self.state = State::kReturned;
    self.fibre.wait();
  }
}

Thread::Thread(unsigned int index) : index(index), fibre(run_threads) {}

void make_ready(Thread& thread) {
  thread.state = State::kReady;
  ready.push_back(&thread);
}

/// The schedule: which of the threads that could run does. They became ready from front to back.
Thread& take_next() {
  if (running.schedule > 1) std::swap(ready.back(), ready[running.random() % ready.size()]);
  Thread& next = running.schedule == 0 ? *ready.front() : *ready.back();
  running.schedule == 0 ? ready.pop_front() : ready.pop_back();
  return next;
}

void resume(Thread& thread) {
  current = &thread;
  thread.state = State::kRunning;
  threadIdx = dim3(thread.index);
  thread.fibre.resume();
  if (thread.state == State::kFailed) stop(failure);
  current = nullptr;
}

/// Whether both are in the same exchange.
bool waits_like(const Thread& a, const Thread& b) {
  return a.state == State::kInWarp && b.state == State::kInWarp && a.mask == b.mask &&
         std::strcmp(a.operation, b.operation) == 0;
}

Group& group_of(const Thread& thread, uint32_t mask) {
  for (Group& group : warps[thread.index / kWarpSize]) {
    if (group.mask == 0) group.mask = mask;
    if (group.mask == mask) return group;
  }
  fail("a warp uses more than %zu masks", Warp{}.size());
}

/// visit(lane, thread) for the lanes of the mask that `waiting` waits with; null for threads that do not exist.
template <typename Visit>
void for_lanes(const Thread& waiting, Visit visit) {
  for (unsigned int k = 0; k < kWarpSize; ++k) {
    if ((waiting.mask >> k & 1) == 0) continue;
    const unsigned int index = waiting.first_of_warp() + k;
    visit(k, index < running.threads ? threads[index].get() : nullptr);
  }
}

/// Gives each lane of `last`'s exchange what the others brought, once all are there.
void settle_exchange(const Thread& last) {
  Lanes values{};
  bool complete = true;
  for_lanes(last, [&](unsigned int k, const Thread* lane) {
    if (lane != nullptr) values[k] = lane->value;
    complete &= lane != nullptr && waits_like(*lane, last);
  });
  if (!complete) return;
  ++group_of(last, last.mask).exchanges;
  for_lanes(last, [&](unsigned int, Thread* lane) {
    lane->received = values;
    make_ready(*lane);
  });
}

/// `thread` has stopped: lets those go on that waited for it and for no other.
void settle(const Thread& thread) {
  if (thread.state == State::kInWarp) settle_exchange(thread);
  if (thread.state == State::kAtBarrier && ++at_barrier == running.threads) {
    at_barrier = 0;
    for (unsigned int k = 0; k < running.threads; ++k) make_ready(*threads[k]);
  }
}

[[noreturn]] void fail_for_good(Thread& waiting) {
  current = &waiting;
  if (waiting.state == State::kAtBarrier) {
    fail("only %u of %u threads came to this __syncthreads", at_barrier, running.threads);
  }
  for_lanes(waiting, [&](unsigned int k, const Thread* lane) {
    if (lane != nullptr && waits_like(*lane, waiting)) return;
    const char* const where = lane == nullptr                    ? "does not exist"
                              : lane->state == State::kInWarp    ? "is at another exchange or mask"
                              : lane->state == State::kAtBarrier ? "is at __syncthreads"
                                                                 : "has returned";
    fail("%s with mask 0x%08x waits for lane %u, which %s", waiting.operation, waiting.mask, k, where);
  });
  fail("nothing is left to run");
}

/// So that a kernel that reads shared memory before it writes there reads the same nonsense in each block.
void spoil_shared_memory() {
  std::memset(running.shared_memory, kUnwritten, running.shared_bytes);
  // Not by memset: the address sanitizer would object to the gaps between the variables.
  for (volatile char* byte = __start_cuda_shared; byte != __stop_cuda_shared; ++byte) *byte = kUnwritten;
}

}  // namespace

void run_block() {
  spoil_shared_memory();
  while (threads.size() < running.threads) threads.push_back(std::make_unique<Thread>(threads.size()));
  warps.assign((running.threads + kWarpSize - 1) / kWarpSize, Warp{});
  at_barrier = 0;
  for (unsigned int k = 0; k < running.threads; ++k) {
    threads[k]->barriers = 0;
    make_ready(*threads[k]);
  }
  happened_before(&begin_of_block);
  while (!ready.empty()) {
    Thread& next = take_next();
    resume(next);
    settle(next);
  }
  after(&end_of_block);
  for (unsigned int k = 0; k < running.threads; ++k) {
    if (threads[k]->state != State::kReturned) fail_for_good(*threads[k]);
  }
  if (running.schedule == 0) count_block();
}

bool is_shared_memory(const void* address) {
  const auto* byte = static_cast<const char*>(address);
  const auto* dynamic = static_cast<const char*>(running.shared_memory);
  return (byte >= dynamic && byte < dynamic + running.shared_bytes) ||
         (byte >= __start_cuda_shared && byte < __stop_cuda_shared);
}

void stop(const std::string& what) {
  if (current != nullptr && current->state == State::kRunning) {
    failure = what;
    current->state = State::kFailed;
    current->fibre.wait();
  }
  // The fibres stand in the middle of a kernel: no later block can use them.
  threads.clear();
  ready.clear();
  current = nullptr;
  throw std::runtime_error(what);
}

void describe_thread(char* text, size_t bytes) {
  if (current == nullptr) return;
  std::snprintf(text, bytes, ", block (%u,%u,%u), thread %u", blockIdx.x, blockIdx.y, blockIdx.z,
                current->index);
}

void* dynamic_shared_memory() { return running.shared_memory; }

int lane() { return static_cast<int>(current->index % kWarpSize); }

void sync_threads() {
  Thread& self = *current;
  char* const turn = &block_barrier[self.barriers++ % 2];
  happened_before(turn);
  self.state = State::kAtBarrier;
  self.fibre.wait();
  after(turn);
}

Lanes exchange(const char* operation, uint32_t mask, uint64_t value) {
  Thread& self = *current;
  if ((mask >> lane() & 1) == 0) fail("%s with mask 0x%08x is called by lane %d", operation, mask, lane());
  self.operation = operation;
  self.mask = mask;
  self.value = value;
  self.state = State::kInWarp;
  self.fibre.wait();
  return self.received;
}

void sync_warp(uint32_t mask) {
  Group& group = group_of(*current, mask);
  char* const turn = &group.turns[group.exchanges % 2];
  happened_before(turn);
  exchange("__syncwarp", mask, 0);
  after(turn);
}

}  // namespace cuda_host
