#pragma once

// gru_scan: with pre = h[t-1] weight' + bias, all of [H] for the gates r, z, n (h[-1] = 0; direction 1 runs
//           from the end)
//           r = sigmoid(gates_r + pre_r), z = sigmoid(gates_z + pre_z), n = tanh(gates_n + r pre_n)
//           h[t] = (1 - z) n + z h[t-1]
//           gates [B,T,D,3H], weight [D,3H,H], bias [D,3H]; out = h [B,T,D,H]
// backward: with dh the gradient of h[t], from out and from h[t+1],
//           grad gates = (dr, dz, dn) = dh (f_r, f_z, f_n);  dh[t-1] = dh z + (dr, dz, r dn) weight
//           f_n = (1-z) (1-n^2), f_z = (h[t-1] - n) z (1-z), f_r = f_n pre_n r (1-r)
//
// Mapping: a block carries kItems items in one direction from the first frame to the last, with a barrier a
// frame. While the weight fits the registers of a multiprocessor (gru_products.cuh) an item has a block of
// its own, since those are many; where it is read again in each frame, four items share that. A thread that
// ends with a unit's sums computes the unit's gates. The state lies in shared memory twice, of this frame and
// the last; a frame's gates are read while the product before runs.
// The backward first computes (f_r, f_z, f_n), r and z of all frames at once, which takes no order, and then
// goes through the frames with one product each.
// Traffic: gates read, out written; backward h, gates and grad read, grad gates written, five factors written
// and read.
// The limit is the order of frames: the 6 H^2 operations of each on one multiprocessor, and their latencies.

#include <cstdint>

#include "common/accumulate.h"
#include "cuda/gru_products.cuh"
#include "cuda/sigmoid.cuh"

namespace task_aware {
namespace {

constexpr int kFactors = 5;

template <typename T>
struct GruParams {
  using A = accumulate_t<T>;

  const T* gates;
  const A* bias;
  void* rows;     // the weight, by gru_pack_kernel, for products with states
  void* columns;  // and for products with gradients of gates; of the backward alone, as are
  const T* h;
  const T* grad;
  A* factors;  // [B,T,D,5,H]
  T* out;      // out or grad gates
  int64_t B;
  int frames, D, H, width;  // width: H, filled up

  /// First element of an item's frame in an array of `columns` a direction.
  __device__ int64_t at(int64_t b, int t, int d, int columns) const {
    return ((b * frames + t) * D + d) * columns;
  }
};

/// The gates of a unit, from what the input and the state contribute.
template <typename A>
struct Gates {
  A r, z, n, pre;

  __device__ __forceinline__ Gates(const A (&input)[3], const A (&sums)[3], const A* bias, int width) {
    r = sigmoid(input[0] + (sums[0] + bias[0]));
    z = sigmoid(input[1] + (sums[1] + bias[width]));
    pre = sums[2] + bias[2 * width];
    n = 2 * sigmoid(2 * (input[2] + r * pre)) - 1;
  }
};

/// kCount values `stride` apart, or zeros.
template <int kCount, typename T, typename A>
__device__ __forceinline__ void read(const T* from, int stride, bool exists, A (&values)[kCount]) {
#pragma unroll
  for (int k = 0; k < kCount; ++k) values[k] = exists ? static_cast<A>(from[k * stride]) : A(0);
}

/// The bias of direction d as [3][width] in shared memory, zeros from `zeros` up to there.
template <typename T, typename A>
__device__ __forceinline__ void prepare(const GruParams<T>& p, int d, int width, A* zeros, A* bias) {
  for (A* to = zeros + threadIdx.x; to < bias; to += blockDim.x) *to = 0;
  for (int k = threadIdx.x; k < 3 * width; k += blockDim.x) {
    const int unit = k % width;
    bias[k] = unit < p.H ? p.bias[(d * 3 + k / width) * p.H + unit] : A(0);
  }
}

template <int kWidth, int kItems, typename T>
__global__ void __launch_bounds__(kThreads<kWidth>, 1) gru_scan_kernel(GruParams<T> p) {
  using A = accumulate_t<T>;
  using Rows = Share<false>;
  const Place<Rows, kItems> place;
  const int d = static_cast<int>(blockIdx.y), width = kWidth > 0 ? kWidth : p.width;
  const int64_t b = int64_t{blockIdx.x} * kItems + place.item;
  A* const states = static_cast<A*>(dynamic_shared_memory());
  A* const bias = states + 2 * kItems * width;
  prepare(p, d, width, states, bias);
  const Weights<Rows, kWidth, A> weights(p.rows, d, width);
  __syncthreads();
  const int first = d == 0 ? 0 : p.frames - 1, rows = d == 0 ? p.D : -p.D;
  const T* gates = p.gates + p.at(b, first, d, 3 * p.H) + place.unit;
  T* out = p.out + p.at(b, first, d, p.H) + place.unit;
  A ahead[3];
  if constexpr (kWidth > 0) read(gates, p.H, b < p.B && place.unit < p.H, ahead);
  int state = 0;  // where that of the last frame begins
  for (int step = 0; step < p.frames; ++step) {
    const int next = kItems * width - state;
    for (int pass = 0; pass < width; pass += kUnitsOfPass<kWidth>) {
      const int unit = pass + place.unit;
      const bool exists = b < p.B && unit < p.H;
      A input[3], sums[3];
      if constexpr (kWidth > 0) {
#pragma unroll
        for (int k = 0; k < 3; ++k) input[k] = ahead[k];
        if (step + 1 < p.frames) gates += rows * 3 * p.H;
        read(gates, p.H, exists, ahead);
      } else {
        read(gates + pass, p.H, exists, input);
      }
      multiply<Rows, kItems>(weights, pass, states + state, width, sums);
      const Gates<A> at(input, sums, bias + unit, width);
      const int own = place.item * width + unit;
      const A h = at.n + at.z * (states[state + own] - at.n);
      if (place.first) {
        states[next + own] = h;
        if (exists) out[pass] = static_cast<T>(h);
      }
    }
    __syncthreads();
    if constexpr (kWidth == 0) gates += rows * 3 * p.H;
    out += rows * p.H;
    state = next;
  }
}

/// Of a block, for a width.
template <typename A>
size_t gru_shared_bytes(int width) {
  return with_width<A>(
      width, [&]<int kWidth, int kItems>() -> size_t { return sizeof(A) * width * (2 * kItems + 3); });
}

/// p.out, of at least one element; p.rows is memory of D * 3 * width^2 numbers.
template <typename T>
void launch_gru_scan(const GruParams<T>& p, const accumulate_t<T>* weight, cudaStream_t stream) {
  with_width<accumulate_t<T>>(p.width, [&]<int kWidth, int kItems>() {
    const dim3 grid = exact_grid((p.B + kItems - 1) / kItems, p.D, "gru_scan");
    launch_gru_pack<Share<false>, kWidth>(weight, p.D, p.H, p.width, p.rows, stream);
    launch({"gru_scan_kernel", grid, kThreads<kWidth>, stream, gru_shared_bytes<accumulate_t<T>>(p.width)},
           gru_scan_kernel<kWidth, kItems, T>, p);
  });
}

}  // namespace
}  // namespace task_aware
