// conv_glu_pool.cuh: `features` [B,F,T], `kernel` [C,3,3], `shift` [C], `weight` [C,C], `bias` [C], a pool of `mel` bands
// and `time` frames -> `out`; backward: also `grad` -> `out` like the features.

#include "cuda/conv_glu_pool.cuh"

#include "case.h"

using namespace task_aware;

void run(cuda_host::Case& test) {
  test.floating_type([&]<typename T>(cuda_host::Type<T>) {
    using A = accumulate_t<T>;
    ConvGluParams<T> p{};
    p.features = test.array<T>("features");
    p.kernel = test.array<A>("kernel");
    p.shift = test.array<A>("shift");
    p.weight = test.array<A>("weight");
    p.bias = test.array<A>("bias");
    p.B = test.integer("B");
    p.C = static_cast<int>(test.integer("C"));
    p.F = static_cast<int>(test.integer("F"));
    p.frames = static_cast<int>(test.integer("T"));
    p.p = static_cast<int>(test.integer("mel"));
    p.n = static_cast<int>(test.integer("time"));
    if (test.word("operation") == "forward") {
      p.out = test.output<T>("out", p.B * p.C * p.bands() * p.pooled_frames());
      launch_conv_glu_pool<false>(p, nullptr);
    } else {
      p.grad = test.array<T>("grad");
      p.out = test.output<T>("out", p.B * p.F * p.frames);
      p.sums = static_cast<A*>(cuda_host::device_memory("sums", p.workspace() * sizeof(A)));
      launch_conv_glu_pool<true>(p, nullptr);
    }
  });
}

int main() { return cuda_host::run_cases(run); }
