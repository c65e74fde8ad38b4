// glu_pool_mma.cuh, and glu_pool.cuh where that does not serve or the `architecture` is below 80: `x` [B,C,F,T], `weight` [C,C] and its transpose `transposed`, `bias` [C], a pool of `mel` bands and
// `time` frames -> `out`; backward: also `grad` -> `out` like x.

#include "cuda/glu_pool_mma.cuh"

#include "case.h"

using namespace task_aware;

template <bool kBackward, typename T>
void launch(GluParams<T>& p) {
  if constexpr (TensorCore<T>::kHas) {
    if (const int64_t bytes = fragment_bytes<kBackward>(p); bytes > 0) {
      p.fragments = static_cast<uint4*>(cuda_host::device_memory("fragments", bytes));
      return launch_glu_pool_mma<kBackward>(p, nullptr);
    }
  }
  launch_glu_pool<kBackward>(p, nullptr);
}

void run(cuda_host::Case& test) {
  cuda_host::set_architecture(static_cast<int>(test.integer("architecture")));
  test.floating_type([&]<typename T>(cuda_host::Type<T>) {
    using A = accumulate_t<T>;
    GluParams<T> p{};
    p.x = test.array<T>("x");
    p.weight = test.array<A>("weight");
    p.transposed = test.array<A>("transposed");
    p.bias = test.array<A>("bias");
    p.grad = test.array<T>("grad");
    p.B = test.integer("B");
    p.C = static_cast<int>(test.integer("C"));
    p.F = static_cast<int>(test.integer("F"));
    p.frames = static_cast<int>(test.integer("T"));
    p.p = static_cast<int>(test.integer("mel"));
    p.n = static_cast<int>(test.integer("time"));
    if (test.word("operation") == "forward") {
      p.out = test.output<T>("out", p.B * p.C * p.bands() * p.pooled_frames());
      launch<false>(p);
    } else {
      p.out = test.output<T>("out", p.B * p.C * p.F * p.frames);
      launch<true>(p);
    }
  });
}

int main() { return cuda_host::run_cases(run); }
