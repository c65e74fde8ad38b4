// pit_loss.cuh: `estimates`, `targets` [B,S,N], `mask` [B,S] -> `loss` [B], `permutation` [B,S];
// backward: also `loss`, `grad` [B], `permutation` -> `grad_estimates`, `grad_targets` [B,S,N], as asked.

#include "cuda/pit_loss.cuh"

#include "case.h"

using namespace task_aware;

void run(cuda_host::Case& test) {
  const int64_t B = test.integer("B"), S = test.integer("S"), N = test.integer("N");
  test.floating_type([&]<typename T>(cuda_host::Type<T>) {
    dispatch_kind(test.integer("kind"), [&]<PitKind kKind>() {
      if (test.word("operation") == "forward") {
        ForwardParams p{test.array<T>("estimates"),
                        test.array<T>("targets"),
                        test.array<bool>("mask"),
                        test.output<accumulate_t<T>>("loss", B),
                        test.output<int64_t>("permutation", B * S),
                        B,
                        N,
                        static_cast<int>(S)};
        p.partial = static_cast<double*>(cuda_host::device_memory("partial", p.workspace() * sizeof(double)));
        launch_pit_loss<kKind, T>(p, nullptr);
      } else {
        const BackwardParams p{
            test.array<accumulate_t<T>>("grad"),
            test.array<accumulate_t<T>>("loss"),
            test.array<T>("estimates"),
            test.array<T>("targets"),
            test.array<int64_t>("permutation"),
            test.array<bool>("mask"),
            test.integer("wants_estimates") ? test.output<T>("grad_estimates", B * S * N) : nullptr,
            test.integer("wants_targets") ? test.output<T>("grad_targets", B * S * N) : nullptr,
            B * S,
            N,
            static_cast<int>(S)};
        launch_pit_loss_backward<kKind, T>(p, nullptr);
      }
    });
  });
}

int main() { return cuda_host::run_cases(run); }
