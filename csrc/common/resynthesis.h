#pragma once

// Which samples lie in which frames: for the CPU and the CUDA kernels of mask_resynthesis.

#include <algorithm>
#include <cstdint>

#include "common/host_device.h"

namespace task_aware {

struct FrameGrid {
  int64_t N;
  int64_t frames;
  int64_t n_fft;
  int64_t hop;

  static FrameGrid of(int64_t N, int64_t n_fft, int64_t hop) { return {N, N / hop + 1, n_fft, hop}; }

  TASK_AWARE_HOST_DEVICE int64_t half() const { return n_fft / 2; }
  TASK_AWARE_HOST_DEVICE int64_t bins() const { return n_fft / 2 + 1; }
  TASK_AWARE_HOST_DEVICE int64_t start(int64_t t) const { return t * hop - half(); }

  /// Frames are transformed in pairs, 2 p and 2 p + 1; of an odd number the last is alone.
  TASK_AWARE_HOST_DEVICE int64_t pairs() const { return (frames + 1) / 2; }

  /// Where the samples begin that no pair before `pair` is the last to reach.
  TASK_AWARE_HOST_DEVICE int64_t first_sample(int64_t pair) const {
    if (pair == 0) return 0;
    if (pair >= pairs()) return N;
    const int64_t sample = start(2 * pair);
    return sample < 0 ? 0 : (sample < N ? sample : N);
  }

  TASK_AWARE_HOST_DEVICE int64_t first_frame_at(int64_t n) const {
    const int64_t beyond = n + half() - n_fft + 1;
    return beyond <= 0 ? 0 : (beyond + hop - 1) / hop;
  }
  TASK_AWARE_HOST_DEVICE int64_t first_pair_at(int64_t n) const { return first_frame_at(n) / 2; }

  /// The sample that stands for n, which may lie up to half() outside of the clip.
  TASK_AWARE_HOST_DEVICE int64_t reflected(int64_t n) const {
    if (n < 0) n = -n;
    return n < N ? n : 2 * (N - 1) - n;
  }

  /// One over the sum of the squared windows at sample n; 0 where there is none.
  template <typename T>
  TASK_AWARE_HOST_DEVICE T inverse_envelope(const T* window, int64_t n) const {
    T sum = 0;
    for (int64_t t = first_frame_at(n); t < frames && start(t) <= n; ++t) {
      sum += window[n - start(t)] * window[n - start(t)];
    }
    return sum > T(0) ? T(1) / sum : T(0);
  }
};

}  // namespace task_aware
