#pragma once

// mel_mask, backward: as csrc/cpu/mel_mask.cpp writes it; mel_mask.cuh has the forward.
//
// Mapping
//   gradient_kernel   a block takes one step through F*T of a clip, for all S sources; a warp leaves what it saw of
//                     gradient held at the threshold and of elements at the maximum
//   tied_kernel       a few blocks per clip make of these what each element at the maximum receives, and take the
//                     steps with such an element again: mostly one for each source
// Traffic: logits and gradients read once, gradients of logits and mel written once. No atomics.

#include <algorithm>
#include <limits>

#include "common/accumulate.h"
#include "cuda/block_reduce.cuh"
#include "cuda/grid.h"
#include "cuda/launch.h"
#include "cuda/mel_mask_shared.cuh"
#include "cuda/vector.cuh"

namespace task_aware {
namespace {

/// The sum over a warp, of values that are mostly 0 in all its lanes.
template <typename A>
__device__ __forceinline__ A rare_sum(A value) {
  if (!__any_sync(0xffffffffu, value != A(0))) return A(0);
  return warp_reduce(value, [](A a, A b) { return a + b; });
}

/// One step of a block through `count` sources of a clip from `begin` on. With kAgain the elements at the maximum of
/// source s receive shares[s]; before, when shares are not known, each warp leaves its statistics.
template <typename T, int kCount, bool kOneBand, bool kAgain, typename A>
__device__ __forceinline__ void gradient_step(const MaskParams<A>& p, int64_t clip, uint32_t step,
                                              uint32_t begin, uint32_t count, const A* shares) {
  const uint32_t i = (step * kThreads + threadIdx.x) * kCount;
  const bool inside = i < p.row_elements;
  Vector<T, kCount> mel{};
  A first = 0, second = 0, grad_mel[kCount] = {};
  const Bands<kCount, kOneBand> bands(p, inside ? i : 0);
  const int64_t first_row = clip * p.S + begin;
  int64_t at = first_row * p.row_elements + i;
  Statistics<A>* of_warp = p.statistics + (first_row * p.steps + step) * kWarps + threadIdx.x / 32;
  if (inside) {
    mel = load<T, kCount>(p.mel, clip * p.row_elements + i);
    if (p.grad_features) {
      first = static_cast<A>(kDecibelsPerNeper) * reciprocal(p.std[bands.first]);
      second = kOneBand ? first : static_cast<A>(kDecibelsPerNeper) * reciprocal(p.std[bands.second]);
    }
  }
  for (uint32_t k = 0; k < count; ++k, at += p.row_elements, of_warp += p.steps * kWarps) {
    const A maximum = p.maximum[first_row + k], threshold = maximum * p.ratio;
    const bool broken = maximum != maximum;
    const A least = broken ? p.amin : larger(p.amin, threshold);
    const A poison = broken && p.grad_features ? maximum : A(0);
    const A held_below = threshold > p.amin ? threshold : -std::numeric_limits<A>::infinity();
    const A share = kAgain ? shares[begin + k] : A(0);
    A held = 0, ties = 0;
    if (inside) {
      const auto logits = load<T, kCount>(p.logits, at);
      Vector<T, kCount> to_masked{}, to_features{}, out;
      if (p.grad_masked) to_masked = load<T, kCount>(p.grad_masked, at);
      if (p.grad_features) to_features = load<T, kCount>(p.grad_features, at);
#pragma unroll
      for (int j = 0; j < kCount; ++j) {
        const A value = static_cast<A>(mel.values[j]);
        const Masked<A> masked = masked_of(static_cast<A>(logits.values[j]), value, p.floor);
        const A through = bands.of(j, first, second) * static_cast<A>(to_features.values[j]) + poison;
        A grad = static_cast<A>(to_masked.values[j]);
        if (masked.value >= least) grad += through * reciprocal(masked.value);
        if (masked.value < held_below) held += through;
        if (masked.value == maximum) {
          ties += 1;
          if constexpr (kAgain) grad += share;
        }
        const A closed = fmin(masked.odds * masked.open, A(1));  // 1 - open; also of infinite odds
        out.values[j] = static_cast<T>(grad * value * ((A(1) - p.floor) * masked.open * closed));
        grad_mel[j] += grad * masked.mask;
      }
      store<T, kCount>(p.out_masked, at, out);
    }
    if (!kAgain && p.grad_features) {
      held = rare_sum(held);
      ties = rare_sum(ties);
      if (threadIdx.x % 32 == 0) *of_warp = {held, ties};
    }
  }
  if (!inside || p.out_other == nullptr) return;
  Vector<T, kCount> out;
#pragma unroll
  for (int j = 0; j < kCount; ++j) out.values[j] = static_cast<T>(grad_mel[j]);
  store<T, kCount>(p.out_other, clip * p.row_elements + i, out);
}

template <typename T, int kCount, bool kOneBand, typename A = accumulate_t<T>>
__global__ void __launch_bounds__(kThreads, kCount > 4 ? 3 : 4) gradient_kernel(MaskParams<A> p) {
  const uint32_t clip = p.by_blocks.quotient(blockIdx.x), step = blockIdx.x - clip * p.by_blocks.value;
  gradient_step<T, kCount, kOneBand, false>(p, clip, step, 0, p.by_sources.value,
                                            static_cast<const A*>(nullptr));
}

/// Again the steps with elements at a maximum that receives for others; the blocks of a clip take turns. The sources
/// of a step are as many tasks, unless the gradient of mel adds them up.
template <typename T, int kCount, bool kOneBand, typename A = accumulate_t<T>>
__global__ void __launch_bounds__(kThreads, 2) tied_kernel(MaskParams<A> p) {
  constexpr int kAtOnce = 8;  // loads that do not wait for each other
  __shared__ bool needed[kThreads];
  const uint32_t blocks = p.by_blocks.value, clip = p.by_blocks.quotient(blockIdx.x);
  const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, sources = p.by_sources.value;
  const uint32_t seen_of_source = p.steps * kWarps;
  const Statistics<A>* const of_clip = p.statistics + int64_t{clip} * sources * seen_of_source;
  A* const shares = p.share + int64_t{blockIdx.x} * sources;
  for (uint32_t s = warp; s < sources; s += kWarps) {
    const Statistics<A>* const of_source = of_clip + int64_t{s} * seen_of_source;
    double held = 0, ties = 0;
    for (uint32_t begin = lane; begin < seen_of_source; begin += 32 * kAtOnce) {
      Statistics<A> seen[kAtOnce];
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k) {
        const uint32_t n = begin + 32 * k;
        seen[k] = n < seen_of_source ? of_source[n] : Statistics<A>{};
      }
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k) {
        held += static_cast<double>(seen[k].held);
        ties += static_cast<double>(seen[k].ties);
      }
    }
    const auto sum = [](double a, double b) { return a + b; };
    held = warp_reduce(held, sum);
    ties = warp_reduce(ties, sum);
    const double maximum = static_cast<double>(p.maximum[int64_t{clip} * sources + s]);
    if (lane == 0) shares[s] = ties > 0 ? static_cast<A>(held / (maximum * ties)) : A(0);
  }

  struct Task {
    uint32_t step, begin, count;  // of sources
  };
  const uint32_t tasks_of_step = p.out_other == nullptr ? sources : 1;
  const auto task = [&](uint32_t number) {
    const uint32_t step = tasks_of_step == 1 ? number : p.by_sources.quotient(number);
    return Task{step, number - step * tasks_of_step, tasks_of_step == 1 ? sources : 1};
  };
  const uint32_t tasks = p.steps * tasks_of_step;
  for (uint32_t first = blockIdx.x - clip * blocks; first < tasks; first += kThreads * blocks) {
    __syncthreads();
    const uint32_t number = first + threadIdx.x * blocks;
    const Task mine = number < tasks ? task(number) : Task{};
    bool any = false;
    for (uint32_t s = mine.begin; s < mine.begin + mine.count; ++s) {
      const Statistics<A>* const seen = of_clip + (int64_t{s} * p.steps + mine.step) * kWarps;
      bool tied = false;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) tied |= seen[w].ties > A(0);
      any |= tied & (shares[s] != A(0));
    }
    needed[threadIdx.x] = any;
    __syncthreads();
    for (uint32_t k = 0; k < kThreads && first + k * blocks < tasks; ++k) {
      if (!needed[k]) continue;
      const Task again = task(first + k * blocks);
      gradient_step<T, kCount, kOneBand, true>(p, clip, again.step, again.begin, again.count, shares);
    }
  }
}

template <typename T, int kCount, bool kOneBand, typename A>
void launch_backward(MaskParams<A> p, A* workspace, cudaStream_t stream) {
  const int64_t steps = (p.row() + kThreads * kCount - 1) / (kThreads * kCount);
  p.steps = static_cast<uint32_t>(steps);
  p.by_blocks = Divisor(steps);
  p.statistics = reinterpret_cast<Statistics<A>*>(workspace);
  launch({"gradient_kernel", exact_grid(p.B * steps, "mel_mask"), kThreads, stream},
         gradient_kernel<T, kCount, kOneBand>, p);
  if (p.grad_features == nullptr) return;
  const int64_t for_ties = std::min((p.tied_blocks + p.B - 1) / p.B, steps * (p.out_other ? 1 : p.S));
  p.by_blocks = Divisor(for_ties);
  p.share = workspace + 2 * p.B * p.S * steps * kWarps;
  launch({"tied_kernel", exact_grid(p.B * for_ties, "mel_mask"), kThreads, stream},
         tied_kernel<T, kCount, kOneBand>, p);
}

/// `workspace` holds backward_workspace() values.
template <typename T, typename A = accumulate_t<T>>
void launch_mel_mask_backward(MaskParams<A> p, A* workspace, cudaStream_t stream) {
  with_groups<T>(
      p, [&]<int kCount, bool kOneBand>() { launch_backward<T, kCount, kOneBand>(p, workspace, stream); });
}

}  // namespace
}  // namespace task_aware
