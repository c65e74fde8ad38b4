#pragma once

// What the kernels' loads and stores cost a GPU's memory pipelines, counted while they run on the host.
//
// In the build `counts` the compiler announces every load and store (by the thread sanitizer's calls, which are
// answered here). The k-th time that the threads of a warp come to one instruction is taken for one access of the warp.
// Its cost is, as documented for compute capability 7.0 to 12.0:
//   shared memory   wavefronts: 32 banks of 4 bytes, one word of each at a time, equal words once; accesses of 8 bytes
//                   go by half warps, of 16 bytes by quarters
//   global memory   the 128-byte lines that it touches
// Accesses to a thread's own variables are registers on a GPU, and not counted.

#include <cstdint>
#include <string>

namespace cuda_host {

/// Sums over all blocks of a kernel's launches.
struct Counts {
  uint64_t blocks;
  uint64_t wavefronts;        // of shared memory
  uint64_t least_wavefronts;  // without bank conflicts
  uint64_t lines;             // of global memory
  uint64_t least_lines;       // were each access of consecutive bytes from the beginning of a line
};

#if defined(CUDA_HOST_COUNTS)
/// The running block has come to its end: its accesses are added to those of its kernel.
void count_block();

/// A line for each kernel since the last call: its name and the Counts.
std::string take_counts();
#else
inline void count_block() {}
inline std::string take_counts() { return {}; }
#endif

}  // namespace cuda_host
