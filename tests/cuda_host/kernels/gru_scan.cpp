// gru_scan.cuh and gru_scan_backward.cuh: `gates` [B,T,D,3H], `weight` [D,3H,H], `bias` [D,3H] -> `out` [B,T,D,H]; backward: also `h` and `grad`
// like that -> `out` like gates.

#include "cuda/gru_scan_backward.cuh"

#include "case.h"

using namespace task_aware;

void run(cuda_host::Case& test) {
  test.floating_type([&]<typename T>(cuda_host::Type<T>) {
    using A = accumulate_t<T>;
    GruParams<T> p{};
    p.gates = test.array<T>("gates");
    p.bias = test.array<A>("bias");
    p.h = test.array<T>("h");
    p.grad = test.array<T>("grad");
    p.B = test.integer("B");
    p.frames = static_cast<int>(test.integer("T"));
    p.D = static_cast<int>(test.integer("D"));
    p.H = static_cast<int>(test.integer("H"));
    p.width = gru_width(p.H);
    const auto memory = [&](const char* name, int64_t numbers) {
      return static_cast<A*>(cuda_host::device_memory(name, numbers * sizeof(A)));
    };
    const int64_t states = p.B * p.frames * p.D * p.H, weights = int64_t{3} * p.D * p.width * p.width;
    const A* const weight = test.array<A>("weight");
    p.rows = memory("rows", weights);
    if (test.word("operation") == "forward") {
      p.out = test.output<T>("out", states);
      return launch_gru_scan(p, weight, nullptr);
    }
    p.columns = memory("columns", weights);
    p.factors = memory("factors", kFactors * states);
    p.out = test.output<T>("out", 3 * states);
    launch_gru_scan_backward(p, weight, nullptr);
  });
}

int main() { return cuda_host::run_cases(run); }
