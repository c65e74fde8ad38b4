#pragma once

// Several lanes share a mel band, whose bins they add up.

#include "cuda/launch.h"

namespace task_aware {

constexpr int kBandLanes = 8;

/// Sums over the lanes of a band. Of several frames each lane gives half away at a time: of frame i the sum is left
/// in the lanes from i * kBandLanes / kFrames on.
template <int kFrames, int kDistance = kBandLanes / 2, typename T>
__device__ __forceinline__ T sum_over_lanes(const T (&sums)[kFrames], int lane) {
  constexpr unsigned int kFullWarp = 0xffffffffu;
  if constexpr (kDistance == 0) {
    return sums[0];
  } else if constexpr (kFrames == 1) {
    const T sum[1] = {sums[0] + __shfl_xor_sync(kFullWarp, sums[0], kDistance)};
    return sum_over_lanes<1, kDistance / 2>(sum, lane);
  } else {
    constexpr int kKept = kFrames / 2;
    const bool upper = (lane & kDistance) != 0;
    T kept[kKept];
#pragma unroll
    for (int i = 0; i < kKept; ++i) {
      const T given = __shfl_xor_sync(kFullWarp, upper ? sums[i] : sums[kKept + i], kDistance);
      kept[i] = (upper ? sums[kKept + i] : sums[i]) + given;
    }
    return sum_over_lanes<kKept, kDistance / 2>(kept, lane);
  }
}

}  // namespace task_aware
