#pragma once

// The passes of conv_block's backward; see conv_block_rows.h and, for the formulas, conv_block.cpp.

#include "cpu/conv_block_rows.h"

namespace task_aware {

/// v again, grad n2 and its sums, and what the chunks add to the gradient of the second matrix [both,wide].
template <typename T>
struct BlockBackProject {
  using A = accumulate_t<T>;

  template <int kBytes>
  static TASK_AWARE_INLINE void run(const BlockParams<T>& p) {
    constexpr int kLanes = kBytes / sizeof(A);
    using V = vector_t<A, kLanes>;
    using Rows = BlockRows<V, T>;
    const int64_t wide = p.wide(), both = p.both(), stride = stride_of(wide), both_stride = stride_of(both);
    std::vector<T> normed(kChunk * stride, T(0)), grads(kChunk * both_stride, T(0)), paired_normed(normed),
        paired_grads(grads);
    for (int64_t index = p.begin; index < p.end; ++index) {
      const Chunk chunk = chunk_at(p, index);
      T* const grad = grads.data();
      if (p.grad_out) copy_rows(grad, both_stride, p.grad_out + chunk.row * p.in, p.in, chunk.count);
      if (p.grad_total)
        copy_rows(grad + p.in_wide(), both_stride, p.grad_total + chunk.row * p.skip, p.skip, chunk.count);
      for (int64_t c = 0; c < both; c += kLanes) {
        V sum{};
        for (int64_t k = 0; k < chunk.count; ++k) sum += load<T, kLanes>(grad + k * both_stride + c);
        store(Rows::sum(p, chunk, kOfBias2) + c, sum);
      }
      multiply<V>(p.project, both, wide, grad, both_stride, chunk.count,
                  [&](int64_t k, int64_t c, V product) TASK_AWARE_LAMBDA {
                    if (k < chunk.count) store(p.grad + (chunk.row + k) * wide + c, product);
                  });
      Rows::convolve(p, chunk);
      sum_norm(p, chunk, V{});
      Rows::normalise(p, chunk, normed.data(), stride);
      multiply_transposed<V>(pair_rows(grad, chunk.count, both_stride, paired_grads.data()), both_stride,
                             both, pair_rows(normed.data(), chunk.count, stride, paired_normed.data()),
                             stride, wide, chunk.count,
                             [&](int64_t o, int64_t c, V product) TASK_AWARE_LAMBDA {
                               A* const to = p.grad_matrix + o * wide + c;
                               store(to, load<A, kLanes>(to) + product);
                             });
    }
  }

  template <typename V>
  static TASK_AWARE_INLINE void sum_norm(const BlockParams<T>& p, const Chunk& chunk, V) {
    constexpr int kLanes = kLanesOf<V>;
    const Norm<A> norm = norm_of(p, chunk, 1);
    for (int64_t c = 0; c < p.wide(); c += kLanes) {
      V to_gain{}, to_shift{};
      for (int64_t row = chunk.row; row < chunk.row + chunk.count; ++row) {
        const V grad = load<A, kLanes>(p.grad + row * p.wide() + c);
        to_gain +=
            grad * ((prelu(load<A, kLanes>(p.v + row * p.wide() + c), p.slope2) - norm.mean) * norm.scale);
        to_shift += grad;
      }
      store(BlockRows<V, T>::sum(p, chunk, kOfGain2) + c, to_gain);
      store(BlockRows<V, T>::sum(p, chunk, kOfShift2) + c, to_shift);
    }
  }
};

/// Grad v in place of grad n2.
template <typename T>
struct BlockBackNorm {
  using A = accumulate_t<T>;

  template <int kBytes>
  static TASK_AWARE_INLINE void run(const BlockParams<T>& p) {
    constexpr int kLanes = kBytes / sizeof(A);
    using V = vector_t<A, kLanes>;
    using Rows = BlockRows<V, T>;
    for (int64_t index = p.begin; index < p.end; ++index) {
      const Chunk chunk = chunk_at(p, index);
      const Norm<A> norm = norm_of(p, chunk, 1);
      const A mean_g = p.means[2 * chunk.b], mean_gs = p.means[2 * chunk.b + 1];
      for (int64_t c = 0; c < p.wide(); c += kLanes) {
        const V gain = Rows::at(p, kGain2, c);
        V to_bias{}, to_slope{};
        for (int64_t row = chunk.row; row < chunk.row + chunk.count; ++row) {
          A* const at = p.grad + row * p.wide() + c;
          const V v = load<A, kLanes>(p.v + row * p.wide() + c),
                  standard = (prelu(v, p.slope2) - norm.mean) * norm.scale;
          const V active = norm.scale * (gain * load<A, kLanes>(at) - mean_g - standard * mean_gs);
          const V grad = v > A(0) ? active : p.slope2 * active;
          store(at, grad);
          to_bias += grad;
          to_slope += v > A(0) ? V{} : active * v;
        }
        store(Rows::sum(p, chunk, kOfDepthBias) + c, to_bias);
        store(Rows::sum(p, chunk, kOfSlope2) + c, to_slope * Rows::at(p, kReal, c));
      }
    }
  }
};

/// The sums of grad n1.
template <typename T>
struct BlockBackConvolve {
  using A = accumulate_t<T>;

  template <int kBytes>
  static TASK_AWARE_INLINE void run(const BlockParams<T>& p) {
    constexpr int kLanes = kBytes / sizeof(A);
    using V = vector_t<A, kLanes>;
    using Rows = BlockRows<V, T>;
    for (int64_t index = p.begin; index < p.end; ++index) {
      const Chunk chunk = chunk_at(p, index);
      const Norm<A> norm = norm_of(p, chunk, 0);
      for (int64_t c = 0; c < p.wide(); c += kLanes) {
        const V gain = Rows::at(p, kGain1, c), shift = Rows::at(p, kShift1, c);
        const V before = Rows::at(p, kBefore, c), here = Rows::at(p, kHere, c),
                after = Rows::at(p, kAfter, c);
        V to_before{}, to_here{}, to_after{}, to_gain{}, to_shift{};
        for (int64_t row = chunk.row; row < chunk.row + chunk.count; ++row) {
          const auto grad = Rows::reaching(p, chunk, row, c);
          const V standard = Rows::standard1(p, norm, row, c), normed = standard * gain + shift;
          const V through = before * grad.after + here * grad.here + after * grad.before;
          to_before += grad.after * normed;
          to_here += grad.here * normed;
          to_after += grad.before * normed;
          to_gain += through * standard;
          to_shift += through;
        }
        store(Rows::sum(p, chunk, kOfBefore) + c, to_before);
        store(Rows::sum(p, chunk, kOfHere) + c, to_here);
        store(Rows::sum(p, chunk, kOfAfter) + c, to_after);
        store(Rows::sum(p, chunk, kOfGain1) + c, to_gain);
        store(Rows::sum(p, chunk, kOfShift1) + c, to_shift);
      }
    }
  }
};

/// Grad x, and what the chunks add to the gradient of the first matrix [wide,in_wide].
template <typename T>
struct BlockBackExpand {
  using A = accumulate_t<T>;

  template <int kBytes>
  static TASK_AWARE_INLINE void run(const BlockParams<T>& p) {
    constexpr int kLanes = kBytes / sizeof(A);
    using V = vector_t<A, kLanes>;
    using Rows = BlockRows<V, T>;
    const int64_t wide = p.wide(), in_wide = p.in_wide(), stride = stride_of(wide),
                  in_stride = stride_of(in_wide);
    std::vector<T> grads(kChunk * stride, T(0)), x(kChunk * in_stride, T(0)), paired_grads(grads),
        paired_x(x);
    for (int64_t index = p.begin; index < p.end; ++index) {
      const Chunk chunk = chunk_at(p, index);
      copy_rows(x.data(), in_stride, p.x + chunk.row * p.in, p.in, chunk.count);
      grad_u(p, chunk, grads.data(), stride, V{});
      multiply<V>(p.expand, p.hidden, in_wide, grads.data(), stride, chunk.count,
                  [&](int64_t k, int64_t c, V product) TASK_AWARE_LAMBDA {
                    if (k < chunk.count) Rows::add_to(p.out, p.grad_out, chunk.row + k, c, p.in, product);
                  });
      multiply_transposed<V>(pair_rows(grads.data(), chunk.count, stride, paired_grads.data()), stride, wide,
                             pair_rows(x.data(), chunk.count, in_stride, paired_x.data()), in_stride, in_wide,
                             chunk.count, [&](int64_t h, int64_t c, V product) TASK_AWARE_LAMBDA {
                               A* const to = p.grad_matrix + h * in_wide + c;
                               store(to, load<A, kLanes>(to) + product);
                             });
    }
  }

  /// Grad u of a chunk to a tile.
  template <typename V>
  static TASK_AWARE_INLINE void grad_u(const BlockParams<T>& p, const Chunk& chunk, T* tile, int64_t stride,
                                       V) {
    constexpr int kLanes = kLanesOf<V>;
    using Rows = BlockRows<V, T>;
    const Norm<A> norm = norm_of(p, chunk, 0);
    const A mean_g = p.means[2 * chunk.b], mean_gs = p.means[2 * chunk.b + 1];
    for (int64_t c = 0; c < p.wide(); c += kLanes) {
      const V gain = Rows::at(p, kGain1, c), real = Rows::at(p, kReal, c);
      const V before = Rows::at(p, kBefore, c), here = Rows::at(p, kHere, c), after = Rows::at(p, kAfter, c);
      V to_bias{}, to_slope{};
      for (int64_t k = 0; k < chunk.count; ++k) {
        const int64_t row = chunk.row + k;
        const auto grad = Rows::reaching(p, chunk, row, c);
        const V through = before * grad.after + here * grad.here + after * grad.before;
        const V u = load<T, kLanes>(p.u + row * p.wide() + c), standard = Rows::standard1(p, norm, row, c);
        const V active = norm.scale * (gain * through - mean_g - standard * mean_gs) * real;
        const V value = u > A(0) ? active : p.slope1 * active;
        store(tile + k * stride + c, value);
        to_bias += value;
        to_slope += u > A(0) ? V{} : active * u;
      }
      store(Rows::sum(p, chunk, kOfBias1) + c, to_bias);
      store(Rows::sum(p, chunk, kOfSlope1) + c, to_slope);
    }
  }
};

}  // namespace task_aware
