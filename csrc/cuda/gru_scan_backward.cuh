#pragma once

// The backward of gru_scan, see gru_scan.cuh.

#include <algorithm>
#include <cstdint>

#include "cuda/gru_scan.cuh"

namespace task_aware {
namespace {

/// Of a block of gru_factors_kernel, and of those at once: as many as have the registers.
template <int kWidth>
constexpr int kFrames = kWidth > 0 ? 32 : 8;
template <int kWidth>
constexpr int kFramesAtOnce = kWidth == 128 ? 1 : 4;

/// f_r, f_z, f_n, r and z of kFrames<kWidth> frames.
template <int kWidth, typename T>
__global__ void __launch_bounds__(kThreads<kWidth>, 1) gru_factors_kernel(GruParams<T> p) {
  using A = accumulate_t<T>;
  using Rows = Share<false>;
  const Place<Rows, kFramesAtOnce<kWidth>> place;
  const int d = static_cast<int>(blockIdx.y), width = kWidth > 0 ? kWidth : p.width;
  const int64_t first = int64_t{blockIdx.x} * kFrames<kWidth>, all = p.B * p.frames;
  A* const states = static_cast<A*>(dynamic_shared_memory());
  A* const bias = states + kFrames<kWidth> * width;
  prepare(p, d, width, bias, bias);
  for (int k = threadIdx.x; k < kFrames<kWidth> * width; k += blockDim.x) {
    const int64_t index = first + k / width;
    const int unit = k % width, t = static_cast<int>(index % p.frames), before = d == 0 ? t - 1 : t + 1;
    const bool exists = index < all && unit < p.H && before >= 0 && before < p.frames;
    states[k] = exists ? static_cast<A>(p.h[p.at(index / p.frames, before, d, p.H) + unit]) : A(0);
  }
  const Weights<Rows, kWidth, A> weights(p.rows, d, width);
  __syncthreads();
  const int64_t row = (first + place.item) * p.D + d;
  const T* gates = p.gates + row * 3 * p.H + place.unit;
  A* factors = p.factors + row * kFactors * p.H + place.unit;
  for (int k = 0; k < kFrames<kWidth>; k += kFramesAtOnce<kWidth>) {
    for (int pass = 0; pass < width; pass += kUnitsOfPass<kWidth>) {
      const int unit = pass + place.unit;
      const bool exists = first + place.item + k < all && unit < p.H;
      A input[3], sums[3];
      read(gates + pass, p.H, exists, input);
      multiply<Rows, kFramesAtOnce<kWidth>>(weights, pass, states + k * width, width, sums);
      const Gates<A> at(input, sums, bias + unit, width);
      const A through = (1 - at.z) * (1 - at.n * at.n);
      const A before = states[(k + place.item) * width + unit];
      if (exists && place.first) {
        A* const to = factors + pass;
        to[0] = through * at.pre * at.r * (1 - at.r);
        to[p.H] = (before - at.n) * at.z * (1 - at.z);
        to[2 * p.H] = through;
        to[3 * p.H] = at.r;
        to[4 * p.H] = at.z;
      }
    }
    gates += kFramesAtOnce<kWidth> * p.D * 3 * p.H;
    factors += kFramesAtOnce<kWidth> * p.D * kFactors * p.H;
  }
}

template <int kWidth, int kItems, typename T>
__global__ void __launch_bounds__(kThreads<kWidth>, 1) gru_scan_backward_kernel(GruParams<T> p) {
  using A = accumulate_t<T>;
  using Columns = Share<true>;
  const Place<Columns, kItems> place;
  const int d = static_cast<int>(blockIdx.y), width = kWidth > 0 ? kWidth : p.width;
  const int64_t b = int64_t{blockIdx.x} * kItems + place.item;
  A* const through = static_cast<A*>(dynamic_shared_memory());  // dr, dz and r dn, of a frame and the next
  A* const kept = through + 2 * kItems * 3 * width;  // what is carried, where units have several passes
  const A* const end = kept + (kWidth > 0 ? 0 : kItems * width);
  for (A* to = through + threadIdx.x; to < end; to += blockDim.x) *to = 0;
  const Weights<Columns, kWidth, A> weights(p.columns, d, width);
  __syncthreads();
  // Lanes with the same item and unit take a gate each, and the last none.
  constexpr int kGates = decltype(place)::kShared > 1 ? 1 : 3;
  const int gate = kGates == 1 ? static_cast<int>(threadIdx.x) % decltype(place)::kShared : 0;
  const int first = d == 0 ? p.frames - 1 : 0, rows = d == 0 ? -p.D : p.D;
  const A* factors = p.factors + p.at(b, first, d, kFactors * p.H) + place.unit;
  const T* grad = p.grad + p.at(b, first, d, p.H) + place.unit;
  T* out = p.out + p.at(b, first, d, 3 * p.H) + place.unit;
  struct Frame {
    A gates[kGates], r, z, grad;
  };
  const auto read_frame = [&](int pass) {
    Frame frame{};
    if (b < p.B && pass + place.unit < p.H) {
#pragma unroll
      for (int k = 0; k < kGates; ++k) frame.gates[k] = factors[(gate + k) * p.H + pass];
      frame.r = factors[3 * p.H + pass];
      frame.z = factors[4 * p.H + pass];
      frame.grad = static_cast<A>(grad[pass]);
    }
    return frame;
  };
  A carried = 0;
  const auto carried_of = [&](int pass) -> A& {
    return kWidth > 0 ? carried : kept[place.item * width + pass + place.unit];
  };
  Frame ahead;
  if constexpr (kWidth > 0) ahead = read_frame(0);
  int now = 0;  // where what goes through this frame begins
  for (int step = 0; step < p.frames; ++step) {
    for (int pass = 0; pass < width; pass += kUnitsOfPass<kWidth>) {
      const Frame frame = kWidth > 0 ? ahead : read_frame(pass);
      A& sum = carried_of(pass);
      const A dh = sum + frame.grad;
      sum = dh * frame.z;
      A* const to = through + now + place.item * 3 * width + pass + place.unit;
#pragma unroll
      for (int k = 0; k < kGates; ++k) {
        const A value = dh * frame.gates[k];
        if (gate + k < 3 && pass + place.unit < p.H) {
          to[(gate + k) * width] = gate + k == 2 ? frame.r * value : value;
          if (b < p.B) out[(gate + k) * p.H + pass] = static_cast<T>(value);
        }
      }
    }
    if (kWidth == 0 || step + 1 < p.frames) {
      factors += rows * kFactors * p.H;
      grad += rows * p.H;
    }
    out += rows * 3 * p.H;
    if constexpr (kWidth > 0) ahead = read_frame(0);
    __syncthreads();
    for (int pass = 0; pass < width; pass += kUnitsOfPass<kWidth>) {
      A sums[1];
      multiply<Columns, kItems>(weights, pass, through + now, width, sums);
      carried_of(pass) += sums[0];
    }
    now = kItems * 3 * width - now;
  }
}

/// As gru_shared_bytes.
template <typename A>
size_t gru_backward_shared_bytes(int width) {
  return with_width<A>(width, [&]<int kWidth, int kItems>() -> size_t {
    constexpr int kFactorRows = kFrames<kWidth> + 3, kScanRows = (kWidth > 0 ? 6 : 7) * kItems;
    return sizeof(A) * width * std::max(kFactorRows, kScanRows);
  });
}

/// As launch_gru_scan; also p.columns is such memory.
template <typename T>
void launch_gru_scan_backward(const GruParams<T>& p, const accumulate_t<T>* weight, cudaStream_t stream) {
  with_width<accumulate_t<T>>(p.width, [&]<int kWidth, int kItems>() {
    const size_t bytes = gru_backward_shared_bytes<accumulate_t<T>>(p.width);
    const dim3 frames = exact_grid((p.B * p.frames + kFrames<kWidth> - 1) / kFrames<kWidth>, p.D, "gru_scan");
    const dim3 items = exact_grid((p.B + kItems - 1) / kItems, p.D, "gru_scan");
    launch_gru_pack<Share<false>, kWidth>(weight, p.D, p.H, p.width, p.rows, stream);
    launch_gru_pack<Share<true>, kWidth>(weight, p.D, p.H, p.width, p.columns, stream);
    launch({"gru_factors_kernel", frames, kThreads<kWidth>, stream, bytes}, gru_factors_kernel<kWidth, T>, p);
    launch({"gru_scan_backward_kernel", items, kThreads<kWidth>, stream, bytes},
           gru_scan_backward_kernel<kWidth, kItems, T>, p);
  });
}

}  // namespace
}  // namespace task_aware
