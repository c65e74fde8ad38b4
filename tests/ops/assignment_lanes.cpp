// The assignment solved by one lane and by eight lanes that run apart, as a warp's may: both must agree, and
// the thread sanitizer must find no pair of accesses left unordered. Prints the number of disagreements.

#include <barrier>
#include <cstdio>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "common/assignment.h"

using task_aware::Assignment;
using task_aware::Nearest;

constexpr int kLanes = 8;

struct Exchange {
  std::barrier<> barrier{kLanes};
  Nearest slots[kLanes];
};

struct Lanes {
  Exchange* exchange;
  int own;

  int lane() const { return own; }
  int count() const { return kLanes; }
  void sync() const { exchange->barrier.arrive_and_wait(); }
  Nearest nearest(Nearest candidate) const {
    exchange->slots[own] = candidate;
    sync();
    Nearest best{INT64_MAX, -1};
    for (const Nearest& slot : exchange->slots) {
      if (slot.distance < best.distance) best = slot;
    }
    sync();
    return best;
  }
};

int main() {
  std::mt19937 generator(1);
  int disagreements = 0;
  for (int round = 0; round < 40; ++round) {
    const int S = 1 + static_cast<int>(generator() % 32);
    const int64_t range = round % 3 == 0 ? 3 : (round % 3 == 1 ? 50 : 1000000);
    auto alone = std::make_unique<Assignment>(), together = std::make_unique<Assignment>();
    for (int j = 0; j < S; ++j) {
      for (int i = 0; i < S; ++i) {
        const auto cost = static_cast<int64_t>(generator() % range);
        alone->set(j, i, cost);
        together->set(j, i, cost);
      }
    }
    alone->solve(S, task_aware::Serial{});
    Exchange exchange;
    std::vector<std::thread> threads;
    for (int lane = 0; lane < kLanes; ++lane) {
      threads.emplace_back([&, lane] { together->solve(S, Lanes{&exchange, lane}); });
    }
    for (std::thread& thread : threads) thread.join();
    for (int j = 0; j < S; ++j) disagreements += alone->match[j] != together->match[j];
  }
  std::printf("%d\n", disagreements);
}
