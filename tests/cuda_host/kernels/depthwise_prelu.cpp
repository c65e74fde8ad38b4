// depthwise_prelu.cuh: `x` [B,C,T], `weight` [C,3], `bias` [C], `slope` [1], `dilation` -> `out`; backward: also `grad` ->
// `out` like x, `grad_weight`, `grad_bias`, `grad_slope` [C].

#include "cuda/depthwise_prelu.cuh"

#include "case.h"

using namespace task_aware;

void run(cuda_host::Case& test) {
  test.floating_type([&]<typename T>(cuda_host::Type<T>) {
    using A = accumulate_t<T>;
    DepthwiseParams<T> p{};
    p.x = test.array<T>("x");
    p.weight = test.array<A>("weight");
    p.bias = test.array<A>("bias");
    p.slope = test.array<A>("slope");
    p.C = static_cast<int>(test.integer("C"));
    p.rows = test.integer("B") * p.C;
    p.frames = static_cast<int>(test.integer("T"));
    p.dilation = test.integer("dilation");
    p.out = test.output<T>("out", p.rows * p.frames);
    if (test.word("operation") == "forward") return launch_depthwise_prelu<false>(p, nullptr);
    p.grad = test.array<T>("grad");
    p.parts = static_cast<A*>(cuda_host::device_memory("parts", p.workspace() * sizeof(A)));
    p.grad_weight = test.output<A>("grad_weight", 3 * p.C);
    p.grad_bias = test.output<A>("grad_bias", p.C);
    p.grad_slope = test.output<A>("grad_slope", p.C);
    launch_depthwise_prelu<true>(p, nullptr);
  });
}

int main() { return cuda_host::run_cases(run); }
