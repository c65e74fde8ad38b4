// reverb_mix.cuh: `sources` [B,S,N], `rirs` [B,S,stride] (stride >= L), `gains` [B,S], `background` [B,N]
// -> `images` [B,S,N] (none where `alone` is 1), `mixture` [B,N].

#include "cuda/reverb_mix.cuh"

#include "case.h"

using namespace task_aware;

void run(cuda_host::Case& test) {
  test.real_type([&]<typename T>(cuda_host::Type<T>) {
    ReverbParams<T> p{};
    p.B = test.integer("B");
    p.S = test.integer("S");
    p.N = test.integer("N");
    p.rir_stride = test.integer("L");
    p.sources = test.array<T>("sources");
    p.rirs = test.array<T>("rirs");
    p.gains = test.array<T>("gains");
    p.background = test.array<T>("background");
    p.shared_bytes = test.integer("shared_bytes");
    if (!test.integer("alone")) p.images = test.output<T>("images", p.B * p.S * p.N);
    p.mixture = test.output<T>("mixture", p.B * p.N);
    p.roots = test.array<Complex<T>>("roots");
    const size_t bytes = p.plan() * sizeof(Complex<T>);
    launch_reverb_mix(p, static_cast<Complex<T>*>(cuda_host::device_memory("workspace", bytes)), nullptr);
  });
}

int main() { return cuda_host::run_cases(run); }
