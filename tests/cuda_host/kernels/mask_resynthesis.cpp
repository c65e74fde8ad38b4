// mask_resynthesis.cuh: `waveform` [B,N], the tables, and `masks` [B,S,F,T] -> `sources` [B,S,N], or for the operation
// "backward" `grad` [B,S,N] -> `grad_masks` [B,S,F,T].

#include "cuda/mask_resynthesis.cuh"

#include "case.h"

using namespace task_aware;

void run(cuda_host::Case& test) {
  test.real_type([&]<typename T>(cuda_host::Type<T>) {
    ResynthesisParams<T> p{};
    p.B = test.integer("B");
    p.S = test.integer("S");
    p.F = static_cast<int>(test.integer("F"));
    p.grid = FrameGrid::of(test.integer("N"), test.integer("n_fft"), test.integer("hop"));
    p.waveform = test.array<T>("waveform");
    p.window = test.array<T>("window");
    p.weights = test.array<T>("weights");
    p.bands = test.array<int>("bands");
    p.cells = test.array<int>("cells");
    p.roots = test.array<Complex<T>>("roots");
    if (test.word("operation") == "forward") {
      p.masks = test.array<T>("masks");
      p.sources = test.output<T>("sources", p.B * p.S * p.grid.N);
    } else {
      p.grad = test.array<T>("grad");
      p.grad_masks = test.output<T>("grad_masks", p.B * p.S * p.F * p.grid.frames);
    }
    const int64_t values = p.B * p.grid.pairs() * p.grid.n_fft;
    p.spectra = static_cast<Complex<T>*>(cuda_host::device_memory("spectra", values * sizeof(Complex<T>)));
    p.inverse_envelope = static_cast<T*>(cuda_host::device_memory("envelope", p.grid.N * sizeof(T)));
    launch_mask_resynthesis(p, 227 * 1024, nullptr);
  });
}

int main() { return cuda_host::run_cases(run); }
