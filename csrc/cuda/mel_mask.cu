// mel_mask: mask = floor + (1 - floor) sigmoid(logits), masked = mask * mel           logits [B,S,F,T], mel
// [B,F,T]
//   features = (20 log10(max(masked, amin, threshold)) - mean) / std                     mean, std [F]
//   maximum[b,s] = max(amin, masked) over F and T, kept for the backward; threshold = maximum * 10^(-top_db /
//   20)
// backward: as csrc/cpu/mel_mask.cpp writes it
//
// Mapping: a (b,s) row of F*T values is cut into chunks, one block each.
//   forward    maximum of each chunk; then every block reduces its row's chunks and writes both outputs
//   backward   each chunk's gradient held at the threshold and its elements at the maximum; one thread per
//   row makes
//              the share of each maximum of it; then a block takes one chunk of F*T of a clip through all S
//              sources
// Traffic: logits once from memory and once from the L2 cache, both outputs (or gradients) once. No atomics.

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <optional>
#include <tuple>

#include "common/cuda.h"
#include "cuda/block_reduce.h"

namespace task_aware {
namespace {

constexpr int kThreads = 256;
constexpr int kWidth = 4;  // values that a thread reads at once where addresses allow
constexpr int64_t kChunkElements = 4096;
constexpr int64_t kMaxChunks = 64;
constexpr double kDecibelsPerNeper = 20.0 / std::numbers::ln10;

template <typename A>
struct MaskParams {
  const void* logits;
  const void* mel;
  const A* mean;
  const A* std;
  int64_t B, S, F, frames;
  int64_t chunks;           // of a row
  int64_t chunk_elements;   // a multiple of kWidth
  A floor, amin, ratio;     // ratio = 10^(-top_db / 20)
  const void* grad_masked;  // these two may be absent
  const void* grad_features;
  A* maximum;  // [B*S]
  A* share;    // [B*S]: what each element at the maximum receives on behalf of those held at the threshold
  A* partial;  // [B*S,chunks]: maximum, or gradient held at the threshold
  A* ties;     // [B*S,chunks]: number of elements at the maximum
  void* out_masked;  // the outputs, or the gradients of logits and mel
  void* out_other;

  __host__ __device__ int64_t row() const { return F * frames; }
};

template <typename T, int kCount>
struct alignas(kCount * sizeof(T)) Vector {
  T values[kCount];
};

__device__ __forceinline__ float exponential(float x) { return expf(x); }
__device__ __forceinline__ double exponential(double x) { return exp(x); }
__device__ __forceinline__ float logarithm(float x) { return logf(x); }
__device__ __forceinline__ double logarithm(double x) { return log(x); }

/// exp(-x), finite.
template <typename A>
__device__ __forceinline__ A odds_against(A x) {
  constexpr A kLimit = sizeof(A) == 4 ? A(87) : A(700);
  return exponential(x < -kLimit ? kLimit : -x);
}

template <typename A>
__device__ __forceinline__ A sigmoid(A x) {
  return A(1) / (A(1) + odds_against(x));
}

// One explicit fma and one product: every kernel gets the same bits, so that ties are found again.
template <typename A>
__device__ __forceinline__ A mask_of(A open, A floor) {
  return fma(A(1) - floor, open, floor);
}

/// The larger one; a NaN wins.
template <typename A>
__device__ __forceinline__ A larger(A a, A b) {
  return (b > a || b != b) ? b : a;
}

/// Calls visit(first) for this thread's groups of kCount elements of chunk `chunk`.
template <int kCount, typename A, typename Visit>
__device__ __forceinline__ void for_chunk(const MaskParams<A>& p, int64_t chunk, Visit visit) {
  const int64_t begin = chunk * p.chunk_elements, row = p.row();
  const int64_t end = begin + p.chunk_elements < row ? begin + p.chunk_elements : row;
  for (int64_t i = begin + threadIdx.x * kCount; i < end; i += kThreads * kCount) visit(i);
}

template <typename T, int kCount>
__device__ __forceinline__ Vector<T, kCount> load(const void* tensor, int64_t index) {
  return *reinterpret_cast<const Vector<T, kCount>*>(static_cast<const T*>(tensor) + index);
}

template <typename T, int kCount>
__device__ __forceinline__ void store(void* tensor, int64_t index, const Vector<T, kCount>& values) {
  *reinterpret_cast<Vector<T, kCount>*>(static_cast<T*>(tensor) + index) = values;
}

template <typename T, int kCount, typename A = accumulate_t<T>>
__global__ void __launch_bounds__(kThreads) maximum_kernel(MaskParams<A> p) {
  __shared__ A shared[kThreads];
  const int64_t row = blockIdx.x / p.chunks, chunk = blockIdx.x % p.chunks;
  A largest = p.amin;
  for_chunk<kCount>(p, chunk, [&](int64_t i) {
    const auto logits = load<T, kCount>(p.logits, row * p.row() + i);
    const auto mel = load<T, kCount>(p.mel, row / p.S * p.row() + i);
    for (int j = 0; j < kCount; ++j) {
      const A mask = mask_of(sigmoid(static_cast<A>(logits.values[j])), p.floor);
      largest = larger(largest, mask * static_cast<A>(mel.values[j]));
    }
  });
  largest = block_reduce<kThreads>(largest, shared, [](A a, A b) { return larger(a, b); });
  if (threadIdx.x == 0) p.partial[blockIdx.x] = largest;
}

template <typename T, int kCount, typename A = accumulate_t<T>>
__global__ void __launch_bounds__(kThreads) features_kernel(MaskParams<A> p) {
  const int64_t row = blockIdx.x / p.chunks, chunk = blockIdx.x % p.chunks;
  A maximum = p.partial[row * p.chunks];
  for (int64_t c = 1; c < p.chunks; ++c) maximum = larger(maximum, p.partial[row * p.chunks + c]);
  if (chunk == 0 && threadIdx.x == 0) p.maximum[row] = maximum;
  const A least = larger(p.amin, maximum * p.ratio);
  for_chunk<kCount>(p, chunk, [&](int64_t i) {
    const auto logits = load<T, kCount>(p.logits, row * p.row() + i);
    const auto mel = load<T, kCount>(p.mel, row / p.S * p.row() + i);
    Vector<T, kCount> masked_out, features_out;
    int64_t f = i / p.frames, t = i - f * p.frames;
    for (int j = 0; j < kCount; ++j) {
      const A mask = mask_of(sigmoid(static_cast<A>(logits.values[j])), p.floor);
      const A masked = mask * static_cast<A>(mel.values[j]);
      const A amplitude = masked >= least ? masked : (maximum == maximum ? least : maximum);
      masked_out.values[j] = static_cast<T>(masked);
      features_out.values[j] =
          static_cast<T>((static_cast<A>(kDecibelsPerNeper) * logarithm(amplitude) - p.mean[f]) / p.std[f]);
      if (++t == p.frames) {
        t = 0;
        f = f + 1 < p.F ? f + 1 : f;
      }
    }
    store<T, kCount>(p.out_masked, row * p.row() + i, masked_out);
    store<T, kCount>(p.out_other, row * p.row() + i, features_out);
  });
}

template <typename T, int kCount, typename A = accumulate_t<T>>
__global__ void __launch_bounds__(kThreads) held_kernel(MaskParams<A> p) {
  __shared__ A shared[kThreads];
  const int64_t row = blockIdx.x / p.chunks, chunk = blockIdx.x % p.chunks;
  const A maximum = p.maximum[row], threshold = maximum * p.ratio;
  A held = 0, ties = 0;
  for_chunk<kCount>(p, chunk, [&](int64_t i) {
    const auto logits = load<T, kCount>(p.logits, row * p.row() + i);
    const auto mel = load<T, kCount>(p.mel, row / p.S * p.row() + i);
    const auto grad = load<T, kCount>(p.grad_features, row * p.row() + i);
    int64_t f = i / p.frames, t = i - f * p.frames;
    for (int j = 0; j < kCount; ++j) {
      const A mask = mask_of(sigmoid(static_cast<A>(logits.values[j])), p.floor);
      const A amplitude = larger(p.amin, mask * static_cast<A>(mel.values[j]));
      if (amplitude < threshold) held += static_cast<A>(grad.values[j]) / p.std[f];
      if (amplitude == maximum) ties += 1;
      if (++t == p.frames) {
        t = 0;
        f = f + 1 < p.F ? f + 1 : f;
      }
    }
  });
  held = block_reduce<kThreads>(held, shared, [](A a, A b) { return a + b; });
  ties = block_reduce<kThreads>(ties, shared, [](A a, A b) { return a + b; });
  if (threadIdx.x == 0) {
    p.partial[blockIdx.x] = held;
    p.ties[blockIdx.x] = ties;
  }
}

template <typename A>
__global__ void __launch_bounds__(kThreads) share_kernel(MaskParams<A> p) {
  const int64_t row = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (row >= p.B * p.S) return;
  A held = 0, ties = 0;
  for (int64_t c = 0; c < p.chunks; ++c) {
    held += p.partial[row * p.chunks + c];
    ties += p.ties[row * p.chunks + c];
  }
  p.share[row] = ties > 0 ? static_cast<A>(kDecibelsPerNeper) * held / (p.maximum[row] * ties) : A(0);
}

template <typename T, int kCount, typename A = accumulate_t<T>>
__global__ void __launch_bounds__(kThreads, 2) gradient_kernel(MaskParams<A> p) {
  const int64_t b = blockIdx.x / p.chunks, chunk = blockIdx.x % p.chunks;
  for_chunk<kCount>(p, chunk, [&](int64_t i) {
    const auto mel = load<T, kCount>(p.mel, b * p.row() + i);
    A grad_mel[kCount] = {};
    for (int64_t s = 0; s < p.S; ++s) {
      const int64_t row = b * p.S + s, at = row * p.row() + i;
      const A maximum = p.maximum[row], threshold = maximum * p.ratio;
      const A share = p.grad_features ? p.share[row] : A(0);
      const A poison = p.grad_features && maximum != maximum ? maximum : A(0);
      const auto logits = load<T, kCount>(p.logits, at);
      Vector<T, kCount> to_masked{}, to_features{}, out;
      if (p.grad_masked) to_masked = load<T, kCount>(p.grad_masked, at);
      if (p.grad_features) to_features = load<T, kCount>(p.grad_features, at);
      int64_t f = i / p.frames, t = i - f * p.frames;
      for (int j = 0; j < kCount; ++j) {
        const A open = sigmoid(static_cast<A>(logits.values[j]));
        const A mask = mask_of(open, p.floor);
        const A value = static_cast<A>(mel.values[j]);
        const A masked = mask * value;
        A grad = static_cast<A>(to_masked.values[j]);
        if (masked >= p.amin) {
          grad += poison;
          if (masked >= threshold) {
            grad += static_cast<A>(kDecibelsPerNeper) * static_cast<A>(to_features.values[j]) /
                    (p.std[f] * masked);
          }
          if (masked == maximum) grad += share;
        }
        const A closed =
            odds_against(static_cast<A>(logits.values[j])) * open;  // 1 - open, to full precision
        out.values[j] = static_cast<T>(grad * value * ((A(1) - p.floor) * open * closed));
        grad_mel[j] += grad * mask;
        if (++t == p.frames) {
          t = 0;
          f = f + 1 < p.F ? f + 1 : f;
        }
      }
      store<T, kCount>(p.out_masked, at, out);
    }
    Vector<T, kCount> out;
    for (int j = 0; j < kCount; ++j) out.values[j] = static_cast<T>(grad_mel[j]);
    store<T, kCount>(p.out_other, b * p.row() + i, out);
  });
}

template <typename A>
MaskParams<A> make_params(const Tensor& logits, const Tensor& mel, const Tensor& std, double floor,
                          double amin, double top_db) {
  MaskParams<A> p{};
  p.logits = logits.const_data_ptr();
  p.mel = mel.const_data_ptr();
  p.std = std.const_data_ptr<A>();
  p.B = logits.size(0);
  p.S = logits.size(1);
  p.F = logits.size(2);
  p.frames = logits.size(3);
  p.chunks = std::clamp<int64_t>((p.row() + kChunkElements - 1) / kChunkElements, 1, kMaxChunks);
  p.chunk_elements = ((p.row() + p.chunks - 1) / p.chunks + kWidth - 1) / kWidth * kWidth;
  p.floor = static_cast<A>(floor);
  // Below the normal numbers of float32 there is no logarithm on the CPU: the same here.
  p.amin = static_cast<A>(std::max<double>(amin, std::numeric_limits<float>::min()));
  p.ratio = static_cast<A>(std::pow(10.0, -top_db / 20));
  return p;
}

/// Whether groups of kWidth elements are whole and aligned in all the tensors.
template <typename T, typename... Pointers>
bool can_group(int64_t row, Pointers... pointers) {
  const auto aligned = [](const void* pointer) {
    return reinterpret_cast<uintptr_t>(pointer) % (kWidth * sizeof(T)) == 0;
  };
  return row % kWidth == 0 && (aligned(pointers) && ...);
}

unsigned int grid_size(int64_t blocks) {
  TASK_AWARE_CHECK(blocks <= std::numeric_limits<int>::max(),
                   "mel_mask: the tensors are too large for one launch.");
  return static_cast<unsigned int>(blocks);
}

void check_arguments(const Tensor& logits, const Tensor& mel, const Tensor& std) {
  TASK_AWARE_CHECK(logits.dim() == 4 && mel.dim() == 3 && logits.size(0) == mel.size(0) &&
                       logits.size(2) == mel.size(1) && logits.size(3) == mel.size(2),
                   "mel_mask: mel must be [B,F,T] of the logits' [B,S,F,T].");
  TASK_AWARE_CHECK(std.dim() == 1 && std.size(0) == logits.size(2), "mel_mask: mean and std must be [F].");
  TASK_AWARE_CHECK(logits.scalar_type() == mel.scalar_type(),
                   "mel_mask: logits and mel must be of one dtype.");
  TASK_AWARE_CHECK(same_device(logits, mel) && same_device(logits, std),
                   "mel_mask: the tensors are on different devices.");
}

std::tuple<Tensor, Tensor, Tensor> mel_mask_cuda(const Tensor& logits_in, const Tensor& mel_in,
                                                 const Tensor& mean_in, const Tensor& std_in, double floor,
                                                 double amin, double top_db) {
  check_arguments(logits_in, mel_in, std_in);
  const CudaScope scope(logits_in);
  const Tensor logits = torch::stable::contiguous(logits_in), mel = torch::stable::contiguous(mel_in);
  const Tensor mean = torch::stable::contiguous(mean_in), std = torch::stable::contiguous(std_in);
  Tensor masked = torch::stable::new_empty(logits, logits.sizes());
  Tensor features = torch::stable::new_empty(logits, logits.sizes());
  Tensor maximum = torch::stable::new_empty(std, {logits.size(0), logits.size(1)});
  if (masked.numel() == 0) return {masked, features, maximum};

  dispatch_floating(logits.scalar_type(), "mel_mask", [&]<typename T>(TypeTag<T>) {
    using A = accumulate_t<T>;
    MaskParams<A> p = make_params<A>(logits, mel, std, floor, amin, top_db);
    const Tensor partial = torch::stable::new_empty(std, {p.B * p.S * p.chunks});
    p.mean = mean.const_data_ptr<A>();
    p.maximum = maximum.mutable_data_ptr<A>();
    p.partial = partial.mutable_data_ptr<A>();
    p.out_masked = masked.mutable_data_ptr();
    p.out_other = features.mutable_data_ptr();
    const unsigned int grid = grid_size(p.B * p.S * p.chunks);
    if (can_group<T>(p.row(), p.logits, p.mel, p.out_masked, p.out_other)) {
      maximum_kernel<T, kWidth><<<grid, kThreads, 0, scope.stream>>>(p);
      features_kernel<T, kWidth><<<grid, kThreads, 0, scope.stream>>>(p);
    } else {
      maximum_kernel<T, 1><<<grid, kThreads, 0, scope.stream>>>(p);
      features_kernel<T, 1><<<grid, kThreads, 0, scope.stream>>>(p);
    }
  });
  check_launch("mel_mask");
  return {masked, features, maximum};
}

std::tuple<Tensor, Tensor> mel_mask_backward_cuda(const std::optional<Tensor>& grad_masked_in,
                                                  const std::optional<Tensor>& grad_features_in,
                                                  const Tensor& logits_in, const Tensor& mel_in,
                                                  const Tensor& std_in, const Tensor& maximum_in,
                                                  double floor, double amin, double top_db) {
  check_arguments(logits_in, mel_in, std_in);
  const CudaScope scope(logits_in);
  const Tensor logits = torch::stable::contiguous(logits_in), mel = torch::stable::contiguous(mel_in);
  const Tensor std = torch::stable::contiguous(std_in), maximum = torch::stable::contiguous(maximum_in);
  const auto given = [&](const std::optional<Tensor>& grad) {
    TASK_AWARE_CHECK(!grad || same_shape(*grad, logits), "mel_mask: the gradients must be [B,S,F,T].");
    return grad ? std::optional<Tensor>(torch::stable::contiguous(*grad)) : std::nullopt;
  };
  const std::optional<Tensor> grad_masked = given(grad_masked_in), grad_features = given(grad_features_in);
  Tensor grad_logits = torch::stable::new_empty(logits, logits.sizes());
  Tensor grad_mel = torch::stable::new_zeros(mel, mel.sizes());
  if (grad_logits.numel() == 0) return {grad_logits, grad_mel};

  dispatch_floating(logits.scalar_type(), "mel_mask", [&]<typename T>(TypeTag<T>) {
    using A = accumulate_t<T>;
    MaskParams<A> p = make_params<A>(logits, mel, std, floor, amin, top_db);
    const int64_t rows = p.B * p.S;
    const Tensor workspace = torch::stable::new_empty(std, {rows * (2 * p.chunks + 1)});
    p.partial = workspace.mutable_data_ptr<A>();
    p.ties = p.partial + rows * p.chunks;
    p.share = p.ties + rows * p.chunks;
    p.maximum = const_cast<A*>(maximum.const_data_ptr<A>());
    p.grad_masked = grad_masked ? grad_masked->const_data_ptr() : nullptr;
    p.grad_features = grad_features ? grad_features->const_data_ptr() : nullptr;
    p.out_masked = grad_logits.mutable_data_ptr();
    p.out_other = grad_mel.mutable_data_ptr();
    const bool grouped =
        can_group<T>(p.row(), p.logits, p.mel, p.grad_masked, p.grad_features, p.out_masked, p.out_other);
    if (p.grad_features) {
      const unsigned int grid = grid_size(rows * p.chunks);
      if (grouped) {
        held_kernel<T, kWidth><<<grid, kThreads, 0, scope.stream>>>(p);
      } else {
        held_kernel<T, 1><<<grid, kThreads, 0, scope.stream>>>(p);
      }
      share_kernel<A><<<grid_size((rows + kThreads - 1) / kThreads), kThreads, 0, scope.stream>>>(p);
    }
    const unsigned int grid = grid_size(p.B * p.chunks);
    if (grouped) {
      gradient_kernel<T, kWidth><<<grid, kThreads, 0, scope.stream>>>(p);
    } else {
      gradient_kernel<T, 1><<<grid, kThreads, 0, scope.stream>>>(p);
    }
  });
  check_launch("mel_mask");
  return {grad_logits, grad_mel};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(task_aware, CUDA, m) {
  m.impl("mel_mask", TORCH_BOX(&mel_mask_cuda));
  m.impl("mel_mask_backward", TORCH_BOX(&mel_mask_backward_cuda));
}

}  // namespace task_aware
