// conv_block: with u[b,h,t] = bias1[h] + sum over c of expand[h,c] x[b,c,t]
//             n1 = gain1 (p1 - mean1[b]) / sd1[b] + shift1,  p1 = u if u > 0, else slope1 u
//             v[b,h,t] = depth_bias[h] + sum over 0 <= k < 3 of depth[h,k] n1[b,h,t + (k-1) dilation], zeros outside
//             n2 = gain2 (p2 - mean2[b]) / sd2[b] + shift2,  p2 = v if v > 0, else slope2 v
//             out = x + bias_out + residual n2,  new total = total + bias_skip + skip n2
//             mean and sd (of the biased variance plus eps) over the channels h and frames t of an item b
//             x, out [B,C,T], total [B,S,T], expand [H,C], depth [H,3], residual [C,H], skip [S,H]
// backward: grad n2 = residual' grad out + skip' grad total;  of a norm with g = gain grad n and s = (p - mean) / sd:
//           grad p = (g - mean of g - s mean of g s) / sd;  grad v, grad n1, grad u follow back through the same steps
//           grad x = grad out + expand' grad u;  grad total is unchanged
//
// x, total and the outputs lie channels last, others are copied. u [B,T,H], channels padded to whole panels, and the norms
// [B,4] are kept for the backward, which computes all else again. Passes share out chunks of frames: u and its moments;
// v and its moments; both outputs. Backward: grad n2, v and sums; grad v; sums of grad n1; grad u and grad x. Moments of
// chunks are merged by their means and sums of squared differences. Traffic: forward x and total read, u written and read,
// v written and read twice, outputs written, all but inputs and outputs likely in the L2 cache. The limit is the
// 2 H (2 C + S) operations of each frame, three times as many in the backward.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <numeric>
#include <tuple>
#include <vector>

#include "common/arguments.h"
#include "common/dispatch.h"
#include "common/parallel.h"
#include "cpu/conv_block_backward.h"
#include "cpu/conv_block_rows.h"
#include "cpu/pages.h"

namespace task_aware {
namespace {

/// [B,C,T] as it lies channels last, and back.
Tensor other_way(const Tensor& x) { return torch::stable::transpose(x, 1, 2); }
Tensor channels_last(const Tensor& x) { return torch::stable::contiguous(other_way(x)); }

/// The weights, in the order of the schema.
enum Weight {
  kExpandWeight,
  kExpandBias,
  kSlope1,
  kGain1Weight,
  kShift1Bias,
  kDepthWeight,
  kDepthBiasWeight,
  kSlope2,
  kGain2Weight,
  kShift2Bias,
  kResidualWeight,
  kResidualBias,
  kSkipWeight,
  kSkipBias
};
using Weights = std::vector<Tensor>;

/// Arrays of the parameters that are made from the weights. Everything beyond the real channels is zero.
template <typename T>
struct Tables {
  using A = accumulate_t<T>;

  std::vector<A> vectors, bias2;
  std::vector<T> expand, project;

  Tables(const BlockParams<T>& p, const Weights& weights, bool backward) {
    const int64_t wide = p.wide(), both = p.both();
    vectors.resize(kBlockVectors * wide, A(0));
    bias2.resize(both, A(0));
    const auto copy = [&](std::vector<A>& to, int64_t offset, Weight which, int64_t step = 1,
                          int64_t first = 0) {
      const A* const from = weights[which].const_data_ptr<A>() + first;
      for (int64_t c = 0; c < weights[which].size(0); ++c) to[offset + c] = from[c * step];
    };
    copy(vectors, kBias1 * wide, kExpandBias);
    copy(vectors, kGain1 * wide, kGain1Weight);
    copy(vectors, kShift1 * wide, kShift1Bias);
    for (int64_t k = 0; k < 3; ++k) copy(vectors, (kBefore + k) * wide, kDepthWeight, 3, k);
    copy(vectors, kDepthBias * wide, kDepthBiasWeight);
    copy(vectors, kGain2 * wide, kGain2Weight);
    copy(vectors, kShift2 * wide, kShift2Bias);
    std::fill_n(vectors.begin() + kReal * wide, p.hidden, A(1));
    copy(bias2, 0, kResidualBias);
    copy(bias2, p.in_wide(), kSkipBias);

    const int64_t H = p.hidden;
    std::vector<A> joined(both * H, A(0));  // [both,H]
    std::copy_n(weights[kResidualWeight].const_data_ptr<A>(), p.in * H, joined.begin());
    std::copy_n(weights[kSkipWeight].const_data_ptr<A>(), p.skip * H, joined.begin() + p.in_wide() * H);
    const A* const first = weights[kExpandWeight].const_data_ptr<A>();
    expand = backward ? panels<T>(first, H, p.in, p.in, 1) : panels<T>(first, p.in, H, 1, p.in);
    project = backward ? panels<T>(joined.data(), both, H, H, 1) : panels<T>(joined.data(), H, both, 1, H);
  }

  void put_into(BlockParams<T>& p) const {
    p.vectors = vectors.data();
    p.bias2 = bias2.data();
    p.expand = expand.data();
    p.project = project.data();
  }
};

template <typename T>
BlockParams<T> make_params(const Tensor& x, const Weights& weights, int64_t dilation) {
  BlockParams<T> p{};
  p.x = x.const_data_ptr<T>();
  p.frames = x.size(1);
  p.in = x.size(2);
  p.skip = weights[kSkipWeight].size(0);
  p.hidden = weights[kExpandWeight].size(0);
  p.dilation = dilation;
  p.slope1 = *weights[kSlope1].const_data_ptr<accumulate_t<T>>();
  p.slope2 = *weights[kSlope2].const_data_ptr<accumulate_t<T>>();
  return p;
}

/// One pass over all chunks; threads share them out.
template <typename Kernel, typename P>
void run_pass(const P& p, int64_t chunks) {
  parallel_for(0, chunks, grain_for(kChunk * p.wide()), [&](int64_t begin, int64_t end) {
    P share = p;
    share.begin = begin;
    share.end = end;
    run_vectorised<Kernel>(share);
  });
}

/// A pass that sums a matrix [rows,columns]; each thread has its own, merged in the order of their chunks.
template <typename Kernel, typename P>
auto run_summing_pass(const P& p, int64_t chunks, int64_t rows, int64_t columns) {
  using A = std::remove_pointer_t<decltype(p.grad_matrix)>;
  std::map<int64_t, std::vector<A>> parts;
  std::mutex lock;
  parallel_for(0, chunks, grain_for(kChunk * p.wide()), [&](int64_t begin, int64_t end) {
    std::vector<A> sums((rows + kChunk) * columns, A(0));  // a product computes some rows beyond
    P share = p;
    share.begin = begin;
    share.end = end;
    share.grad_matrix = sums.data();
    run_vectorised<Kernel>(share);
    const std::lock_guard guard(lock);
    parts.emplace(begin, std::move(sums));
  });
  std::vector<A> result = std::move(parts.begin()->second);
  for (auto part = std::next(parts.begin()); part != parts.end(); ++part) {
    for (int64_t k = 0; k < rows * columns; ++k) result[k] += part->second[k];
  }
  return result;
}

/// Merges the moments of an item's chunks: mean and 1 / standard deviation to norms[4 b], norms[4 b + 1].
template <typename T, typename A>
void merge_moments(const BlockParams<T>& p, int64_t B, A* norms, double eps) {
  for (int64_t b = 0; b < B; ++b) {
    double count = 0, mean = 0, squares = 0;
    for (int64_t k = 0; k < p.chunks_of_item(); ++k) {
      const A* const moments = p.moments + 2 * (b * p.chunks_of_item() + k);
      const auto added = static_cast<double>(std::min(kChunk, p.frames - k * kChunk) * p.hidden);
      const double difference = moments[0] - mean, joined = count + added;
      mean += difference * added / joined;
      squares += moments[1] + difference * difference * count * added / joined;
      count = joined;
    }
    norms[4 * b] = static_cast<A>(mean);
    norms[4 * b + 1] = static_cast<A>(1 / std::sqrt(squares / count + eps));
  }
}

/// The means over each item of g and of g times the standardised value, from the sums of grad n and of grad n times it.
template <typename T, typename A>
void merge_means(const BlockParams<T>& p, int64_t B, BlockVector gain, BlockSum to_gain, BlockSum to_shift,
                 A* means) {
  const A* const gains = p.vectors + gain * p.wide();
  for (int64_t b = 0; b < B; ++b) {
    double sums[2] = {};
    for (int64_t k = 0; k < p.chunks_of_item(); ++k) {
      const A* const of_chunk = p.sums + (b * p.chunks_of_item() + k) * kBlockSums * p.sums_width();
      for (int64_t c = 0; c < p.hidden; ++c) {
        sums[0] += static_cast<double>(gains[c]) * of_chunk[to_shift * p.sums_width() + c];
        sums[1] += static_cast<double>(gains[c]) * of_chunk[to_gain * p.sums_width() + c];
      }
    }
    for (int k = 0; k < 2; ++k)
      means[2 * b + k] = static_cast<A>(sums[k] / static_cast<double>(p.frames * p.hidden));
  }
}

Weights contiguous_weights(std::initializer_list<const Tensor*> tensors) {
  Weights weights;
  for (const Tensor* tensor : tensors) weights.push_back(torch::stable::contiguous(*tensor));
  return weights;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> conv_block_cpu(
    const Tensor& x_in, const Tensor& total_in, const Tensor& expand, const Tensor& bias1,
    const Tensor& slope1, const Tensor& gain1, const Tensor& shift1, const Tensor& depth,
    const Tensor& depth_bias, const Tensor& slope2, const Tensor& gain2, const Tensor& shift2,
    const Tensor& residual, const Tensor& bias_out, const Tensor& skip, const Tensor& bias_skip,
    int64_t dilation, double eps) {
  const Weights weights =
      contiguous_weights({&expand, &bias1, &slope1, &gain1, &shift1, &depth, &depth_bias, &slope2, &gain2,
                          &shift2, &residual, &bias_out, &skip, &bias_skip});
  check_conv_block_arguments(x_in, total_in, weights, dilation);
  const Tensor x = channels_last(x_in), total = channels_last(total_in);
  const int64_t B = x.size(0), frames = x.size(1), wide = whole_panels(expand.size(0));
  Tensor out = new_output(x, x.sizes()), new_total = new_output(total, total.sizes());
  Tensor u = new_output(x, {B, frames, wide}), norms = torch::stable::new_empty(bias1, {B, 4});
  if (B * frames == 0) return {other_way(out), other_way(new_total), u, norms};
  Tensor v = new_output(bias1, {B, frames, wide});
  dispatch_floating(x.scalar_type(), "conv_block", [&]<typename T>(TypeTag<T>) {
    using A = accumulate_t<T>;
    BlockParams<T> p = make_params<T>(x, weights, dilation);
    const Tables<T> tables(p, weights, false);
    tables.put_into(p);
    const int64_t chunks = B * p.chunks_of_item();
    std::vector<A> moments(2 * chunks);
    A* const to_norms = norms.mutable_data_ptr<A>();
    p.total = total.const_data_ptr<T>();
    p.u = u.mutable_data_ptr<T>();
    p.v = v.mutable_data_ptr<A>();
    p.out = out.mutable_data_ptr<T>();
    p.new_total = new_total.mutable_data_ptr<T>();
    p.moments = moments.data();
    p.norms = to_norms;
    run_pass<BlockExpand<T>>(p, chunks);
    merge_moments(p, B, to_norms, eps);
    run_pass<BlockConvolve<T>>(p, chunks);
    merge_moments(p, B, to_norms + 2, eps);
    run_pass<BlockProject<T>>(p, chunks);
  });
  return {other_way(out), other_way(new_total), u, norms};
}

/// Grad x, of expand [H,C], of residual and skip [C+S,H], and the sums of kBlockSums [kBlockSums,*] over their first channels;
/// kOfBias2 holds those of bias_out, and those of bias_skip from the next whole panel on.
std::tuple<Tensor, Tensor, Tensor, Tensor> conv_block_backward_cpu(
    const std::optional<Tensor>& grad_out_in, const std::optional<Tensor>& grad_total_in, const Tensor& x_in,
    const Tensor& u, const Tensor& norms, const Tensor& expand, const Tensor& bias1, const Tensor& slope1,
    const Tensor& gain1, const Tensor& shift1, const Tensor& depth, const Tensor& depth_bias,
    const Tensor& slope2, const Tensor& gain2, const Tensor& shift2, const Tensor& residual,
    const Tensor& bias_out, const Tensor& skip, const Tensor& bias_skip, int64_t dilation) {
  const Weights weights =
      contiguous_weights({&expand, &bias1, &slope1, &gain1, &shift1, &depth, &depth_bias, &slope2, &gain2,
                          &shift2, &residual, &bias_out, &skip, &bias_skip});
  const Tensor x = channels_last(x_in);
  const int64_t B = x.size(0), frames = x.size(1), C = x.size(2), S = skip.size(0), H = expand.size(0),
                wide = whole_panels(H), width = std::max(wide, whole_panels(C) + whole_panels(S));
  const auto gradient = [&](const std::optional<Tensor>& grad, int64_t channels) {
    if (!grad.has_value()) return torch::stable::new_empty(x, {0});
    TASK_AWARE_CHECK(grad->dim() == 3 && grad->size(0) == B && grad->size(1) == channels &&
                         grad->size(2) == frames && grad->scalar_type() == x.scalar_type(),
                     "conv_block: the gradients must be as the outputs.");
    return channels_last(*grad);
  };
  const Tensor grad_out = gradient(grad_out_in, C), grad_total = gradient(grad_total_in, S);
  check_conv_block_arguments(x_in, torch::stable::new_empty(x, {B, S, frames}), weights, dilation);
  Tensor grad_x = new_output(x, x.sizes());
  Tensor grad_expand = torch::stable::new_zeros(expand, {H, C}),
         grad_both = torch::stable::new_zeros(expand, {C + S, H});
  Tensor sums = torch::stable::new_zeros(bias1, {kBlockSums, width});
  if (B * frames == 0) return {other_way(grad_x), grad_expand, grad_both, sums};
  Tensor v = new_output(bias1, {B, frames, wide}), grad_v = new_output(bias1, {B, frames, wide});
  dispatch_floating(x.scalar_type(), "conv_block", [&]<typename T>(TypeTag<T>) {
    using A = accumulate_t<T>;
    BlockParams<T> p = make_params<T>(x, weights, dilation);
    const Tables<T> tables(p, weights, true);
    tables.put_into(p);
    const int64_t chunks = B * p.chunks_of_item();
    std::vector<A> means(2 * B), of_chunks(chunks * kBlockSums * width);
    p.grad_out = grad_out_in ? grad_out.const_data_ptr<T>() : nullptr;
    p.grad_total = grad_total_in ? grad_total.const_data_ptr<T>() : nullptr;
    p.u = const_cast<T*>(u.const_data_ptr<T>());
    p.v = v.mutable_data_ptr<A>();
    p.grad = grad_v.mutable_data_ptr<A>();
    p.out = grad_x.mutable_data_ptr<T>();
    p.norms = norms.const_data_ptr<A>();
    p.means = means.data();
    p.sums = of_chunks.data();
    const std::vector<A> both = run_summing_pass<BlockBackProject<T>>(p, chunks, p.both(), wide);
    merge_means(p, B, kGain2, kOfGain2, kOfShift2, means.data());
    run_pass<BlockBackNorm<T>>(p, chunks);
    run_pass<BlockBackConvolve<T>>(p, chunks);
    merge_means(p, B, kGain1, kOfGain1, kOfShift1, means.data());
    const std::vector<A> first = run_summing_pass<BlockBackExpand<T>>(p, chunks, wide, p.in_wide());

    A *const to_expand = grad_expand.mutable_data_ptr<A>(), *const to_both = grad_both.mutable_data_ptr<A>();
    for (int64_t h = 0; h < H; ++h) std::copy_n(first.begin() + h * p.in_wide(), C, to_expand + h * C);
    for (int64_t o = 0; o < C; ++o) std::copy_n(both.begin() + o * wide, H, to_both + o * H);
    for (int64_t o = 0; o < S; ++o)
      std::copy_n(both.begin() + (p.in_wide() + o) * wide, H, to_both + (C + o) * H);
    A* const to_sums = sums.mutable_data_ptr<A>();
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      for (int64_t k = 0; k < kBlockSums * width; ++k)
        to_sums[k] += of_chunks[chunk * kBlockSums * width + k];
    }
    for (const BlockSum slope : {kOfSlope1, kOfSlope2}) {
      A* const by_channel = to_sums + slope * width;
      *by_channel = std::accumulate(by_channel, by_channel + H, A(0));
    }
  });
  return {other_way(grad_x), grad_expand, grad_both, sums};
}

}  // namespace

#define TASK_AWARE_BLOCK_WEIGHTS                                                                      \
  "Tensor expand, Tensor bias1, Tensor slope1, Tensor gain1, Tensor shift1, Tensor depth, "           \
  "Tensor depth_bias, Tensor slope2, Tensor gain2, Tensor shift2, Tensor residual, Tensor bias_out, " \
  "Tensor skip, Tensor bias_skip, int dilation"

STABLE_TORCH_LIBRARY_FRAGMENT(task_aware, m) {
  m.def("conv_block(Tensor x, Tensor total, " TASK_AWARE_BLOCK_WEIGHTS
        ", float eps) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "conv_block_backward(Tensor? grad_out, Tensor? grad_total, Tensor x, Tensor u, Tensor "
      "norms, " TASK_AWARE_BLOCK_WEIGHTS ") -> (Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(task_aware, CPU, m) {
  m.impl("conv_block", TORCH_BOX(&conv_block_cpu));
  m.impl("conv_block_backward", TORCH_BOX(&conv_block_backward_cpu));
}

}  // namespace task_aware
