// mel_spectrogram.cuh: `waveform` [C,N] and the tables -> `mel` [C,F,N/hop+1].

#include "cuda/mel_spectrogram.cuh"

#include "case.h"

using namespace task_aware;

void run(cuda_host::Case& test) {
  test.real_type([&]<typename T>(cuda_host::Type<T>) {
    FrameParams<T> p{};
    p.clips = test.integer("C");
    p.N = test.integer("N");
    p.hop = test.integer("hop");
    p.frames = p.N / p.hop + 1;
    p.n_fft = static_cast<int>(test.integer("n_fft"));
    p.F = static_cast<int>(test.integer("F"));
    p.waveform = test.array<T>("waveform");
    p.window = test.array<T>("window");
    p.twiddles = test.array<Complex<T>>("twiddles");
    p.roots = test.array<Complex<T>>("roots");
    p.weights = test.array<T>("weights");
    p.bands = test.array<int>("bands");
    p.mel = test.output<T>("mel", p.clips * p.F * p.frames);
    launch_mel_spectrogram(p, 99 * 1024, nullptr);
  });
}

int main() { return cuda_host::run_cases(run); }
