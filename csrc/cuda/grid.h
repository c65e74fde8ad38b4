#pragma once

// Sizes of grids.

#include <algorithm>
#include <cstdint>
#include <limits>

#include "common/check.h"
#include "cuda/launch.h"

namespace task_aware {

constexpr int64_t kMaxGridY = 65535;

/// Blocks for `count` items at `per_block` each, at most `limit`: kernels loop over the rest.
inline unsigned int block_count(int64_t count, int64_t per_block, int64_t limit = int64_t{1} << 20) {
  return static_cast<unsigned int>(std::clamp<int64_t>((count + per_block - 1) / per_block, 1, limit));
}

/// A grid of exactly `blocks`, for kernels that do not loop.
inline unsigned int exact_grid(int64_t blocks, const char* operation) {
  TASK_AWARE_CHECK(blocks <= std::numeric_limits<int32_t>::max(), operation,
                   ": the batch is too large for one call; pass fewer clips.");
  return static_cast<unsigned int>(blocks);
}
inline dim3 exact_grid(int64_t x, int64_t y, const char* operation) {
  TASK_AWARE_CHECK(y <= kMaxGridY, operation, ": the batch is too large for one call; pass fewer clips.");
  return {exact_grid(x, operation), static_cast<unsigned int>(y)};
}

}  // namespace task_aware
