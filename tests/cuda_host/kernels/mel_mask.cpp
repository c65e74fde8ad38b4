// mel_mask.cuh: `logits` [B,S,F,T], `mel` [B,F,T], `mean`, `std` [F] -> `masked`, `features`, `maximum` [B,S];
// mel_mask_backward.cuh: also `maximum` and any of `grad_masked`, `grad_features` -> `grad_logits`, `grad_mel`.
// divide: `numbers`, `divisors` -> `quotients`.

#include "cuda/mel_mask.cuh"
#include "cuda/mel_mask_backward.cuh"

#include "case.h"

using namespace task_aware;

__global__ void divide(const int* numbers, const int* divisors, int* quotients) {
  quotients[blockIdx.x] = Divisor(divisors[blockIdx.x]).quotient(numbers[blockIdx.x]);
}

void run(cuda_host::Case& test) {
  if (test.word("operation") == "divide") {
    const int64_t count = test.integer("count");
    const int *numbers = test.array<int>("numbers"), *divisors = test.array<int>("divisors");
    launch({"divide", exact_grid(count, "divide"), 1, nullptr}, divide, numbers, divisors,
           test.output<int>("quotients", count));
    return;
  }
  test.floating_type([&]<typename T>(cuda_host::Type<T>) {
    using A = accumulate_t<T>;
    MaskParams<A> p{};
    p.logits = test.array<T>("logits");
    p.mel = test.array<T>("mel");
    p.mean = test.array<A>("mean");
    p.std = test.array<A>("std");
    p.B = test.integer("B");
    p.S = test.integer("S");
    p.F = test.integer("F");
    p.frames = test.integer("T");
    p.cache_bytes = test.integer("cache_bytes");
    p.tied_blocks = test.integer("tied_blocks");
    p.set_options(test.real("floor"), test.real("amin"), test.real("top_db"));
    const bool forward = test.word("operation") == "forward";
    const size_t values = forward ? p.forward_workspace() : p.backward_workspace();
    auto* workspace = static_cast<A*>(cuda_host::device_memory("workspace", values * sizeof(A)));
    const int64_t count = p.B * p.S * p.row();
    if (forward) {
      p.maximum = test.output<A>("maximum", p.B * p.S);
      p.out_masked = test.output<T>("masked", count);
      p.out_other = test.output<T>("features", count);
      launch_mel_mask<T>(p, workspace, nullptr);
    } else {
      p.maximum = const_cast<A*>(test.array<A>("maximum"));
      p.grad_masked = test.array<T>("grad_masked");
      p.grad_features = test.array<T>("grad_features");
      p.out_masked = test.output<T>("grad_logits", count);
      if (test.integer("wants_mel")) p.out_other = test.output<T>("grad_mel", p.B * p.row());
      launch_mel_mask_backward<T>(p, workspace, nullptr);
    }
  });
}

int main() { return cuda_host::run_cases(run); }
