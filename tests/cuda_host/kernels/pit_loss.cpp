// pit_loss.cuh: `estimates`, `targets` [B,S,N], `mask` [B,S], `allowed` [B,S,S] -> `loss` [B], `permutation` [B,S],
// of ratios `slopes` [B,S,5];
// backward: also `loss`, `grad` [B], `permutation`, `slopes` -> `grad_estimates`, `grad_targets` [B,S,N], as asked.
// assignment: `costs` [B,S,S] -> `solved`, `scored` [B,S], by either algorithm.

#include "cuda/pit_loss.cuh"
#include "cuda/pit_loss_backward.cuh"

#include "case.h"

using namespace task_aware;

namespace {

/// A warp for each item.
__global__ void assignments(const double* costs, int S, int64_t* solved, int64_t* scored) {
  __shared__ Assignment assignment;
  const double* const of_item = costs + blockIdx.x * S * S;
  double largest = 0;
  for (int k = 0; k < S * S; ++k) {
    if (!isinf(of_item[k])) largest = std::max(largest, fabs(of_item[k]));
  }
  for (int k = threadIdx.x; k < S * S; k += 32) {
    assignment.set(k / S, k % S, round_cost(of_item[k], cost_exponent(largest)));
  }
  const int j = threadIdx.x;
  assignment.solve(S, Warp{});
  if (j < S) solved[blockIdx.x * S + j] = assignment.match[j];
  __syncwarp();
  assignment.score_all(S, Warp{});
  if (j < S) scored[blockIdx.x * S + j] = assignment.match[j];
}

}  // namespace

void run(cuda_host::Case& test) {
  const int64_t B = test.integer("B"), S = test.integer("S");
  if (test.word("operation") == "assignment") {
    launch({"assignments", static_cast<unsigned int>(B), 32, nullptr}, assignments,
           test.array<double>("costs"), static_cast<int>(S), test.output<int64_t>("solved", B * S),
           test.output<int64_t>("scored", B * S));
    return;
  }
  const int64_t N = test.integer("N");
  test.floating_type([&]<typename T>(cuda_host::Type<T>) {
    const PitKind kind = static_cast<PitKind>(test.integer("kind"));
    dispatch_kind(test.integer("kind"), [&]<PitKind kKind>() {
      if (test.word("operation") == "forward") {
        ForwardParams p{test.array<T>("estimates"),
                        test.array<T>("targets"),
                        test.array<bool>("mask"),
                        test.output<accumulate_t<T>>("loss", B),
                        test.output<int64_t>("permutation", B * S),
                        B,
                        N,
                        static_cast<int>(S),
                        kind,
                        test.array<bool>("allowed"),
                        is_ratio(kind) ? test.output<Slopes>("slopes", B * S) : nullptr};
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
            B,
            N,
            static_cast<int>(S),
            static_cast<const Slopes*>(static_cast<const void*>(test.array<double>("slopes")))};
        launch_pit_loss_backward<kKind, T>(p, nullptr);
      }
    });
  });
}

int main() { return cuda_host::run_cases(run); }
