// reorder.cuh: estimates or gradients `source` [B,S,N] and `permutation` [B,S] -> `result` [B,S,N].

#include "cuda/reorder.cuh"

#include "case.h"

using namespace task_aware;

void run(cuda_host::Case& test) {
  const int64_t B = test.integer("B"), S = test.integer("S"), N = test.integer("N");
  test.floating_type([&]<typename T>(cuda_host::Type<T>) {
    const ReorderParams p{test.array<T>("source"),
                          test.array<int64_t>("permutation"),
                          test.output<T>("result", B * S * N),
                          B * S,
                          S,
                          N};
    if (test.word("operation") == "forward") {
      launch_reorder<T, false>(p, nullptr);
    } else {
      launch_reorder<T, true>(p, nullptr);
    }
  });
}

int main() { return cuda_host::run_cases(run); }
