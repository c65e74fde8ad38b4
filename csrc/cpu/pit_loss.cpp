// pit_loss: loss[b] = 1/(M*N) * min over permutations of sum over existing targets j and elements n of
//                     d(estimates[b, permutation[b,j], n], targets[b,j,n])
//   estimates, targets [B,S,N]; mask [B,S]: the M existing targets of each item; loss [B]
//   permutation [B,S]: the lexicographically first
//   d: mse (e-t)^2 · l1 |e-t| · bce -(t*max(log e,-100) + (1-t)*max(log(1-e),-100))
//
// Traffic: forward reads 2*B*S*N elements once; backward reads them again and writes up to as many (past the
// caches where they are too many to stay there).
// Pair costs come from direct differences. One task is a chunk of one item: blocks of it stay in L1 while all
// S*S pairs pass over them, a block's sums are held in float32 vector registers and then added in float64
// vectors, whose elements are added at the end of the chunk.
// Chunks are added in order, so the result does not depend on the number of threads; every pair is summed in
// the same order, so equal rows have equal costs.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <tuple>
#include <type_traits>
#include <vector>

#include "common/arguments.h"
#include "common/dispatch.h"
#include "common/parallel.h"
#include "common/pit_cost.h"
#include "cpu/streaming.h"

namespace task_aware {
namespace {

constexpr int64_t kChunk = 8192;        // elements of a row per task
constexpr int64_t kStepsPerFlush = 32;  // vectors added in float32 before a flush to float64
constexpr int kTile = 5;  // targets that pass a group of estimates, whose sums stay in registers

/// Estimates of such a group, by the bytes of a vector: AVX-512 has 32 registers, the others 16.
template <size_t kBytes>
constexpr int kMostEstimates = kBytes == 64 ? 5 : 2;

struct ChunkParams {
  const void* estimates;  // row 0 of the item, at the chunk's first element
  const void* targets;
  const bool* exists;  // [S] or null
  double* costs;       // [S,S], row = target
  int64_t S;
  int64_t N;       // elements between rows
  int64_t length;  // elements in the chunk
  PitKind kind;
};

template <typename Real, int kWidth>
struct Vector {
  typedef Real type __attribute__((vector_size(kWidth * sizeof(Real))));
};

template <typename T, int kWidth>
TASK_AWARE_INLINE auto load(const T* source) {
  using Real = accumulate_t<T>;
  typename Vector<Real, kWidth>::type result;
  if constexpr (std::is_same_v<T, BFloat16>) {
    typename Vector<uint16_t, kWidth>::type bits;
    std::memcpy(&bits, source, sizeof(bits));
    const auto wide = __builtin_convertvector(bits, typename Vector<uint32_t, kWidth>::type) << 16;
    std::memcpy(&result, &wide, sizeof(result));
  } else {
    std::memcpy(&result, source, sizeof(result));
  }
  return result;
}

template <typename Real, int kWidth>
TASK_AWARE_INLINE auto absolute(typename Vector<Real, kWidth>::type value) {
  using Bits = std::conditional_t<sizeof(Real) == 4, uint32_t, uint64_t>;
  typename Vector<Bits, kWidth>::type bits;
  std::memcpy(&bits, &value, sizeof(bits));
  bits &= ~(Bits{1} << (8 * sizeof(Bits) - 1));
  std::memcpy(&value, &bits, sizeof(bits));
  return value;
}

/// Rows of estimates and of targets that pass each other. For bce an estimate is given as its two logarithms,
/// `first` = log e and `second` = log(1-e).
template <typename E, typename T>
struct Rows {
  const E* first[kTile];
  const E* second[kTile];
  const T* target[kTile];
};

// Sums of d over `steps` vectors for every pair of a tile; `sums` are float64 [kEstimates, stride].
template <PitKind kKind, typename E, typename T, int kWidth, int kEstimates, int kTargets>
TASK_AWARE_INLINE void add_tile(const Rows<E, T>& rows, int64_t steps,
                                typename Vector<double, kWidth>::type* sums, int64_t stride) {
  using Real = accumulate_t<T>;
  typename Vector<Real, kWidth>::type held[kEstimates][kTargets] = {};
  for (int64_t step = 0; step < steps; ++step) {
    typename Vector<Real, kWidth>::type t[kTargets];
    for (int j = 0; j < kTargets; ++j) t[j] = load<T, kWidth>(rows.target[j] + step * kWidth);
    for (int i = 0; i < kEstimates; ++i) {
      const auto e = load<E, kWidth>(rows.first[i] + step * kWidth);
      for (int j = 0; j < kTargets; ++j) {
        if constexpr (kKind == PitKind::kBce) {
          const auto l = load<E, kWidth>(rows.second[i] + step * kWidth);
          held[i][j] -= t[j] * e + (1 - t[j]) * l;
        } else {
          const auto difference = e - t[j];
          if constexpr (kKind == PitKind::kMse) {
            held[i][j] += difference * difference;
          } else {
            held[i][j] += absolute<Real, kWidth>(difference);
          }
        }
      }
    }
  }
  for (int i = 0; i < kEstimates; ++i) {
    for (int j = 0; j < kTargets; ++j) {
      sums[i * stride + j] += __builtin_convertvector(held[i][j], typename Vector<double, kWidth>::type);
    }
  }
}

/// add_tile with the tile's sizes as constants.
template <PitKind kKind, typename E, typename T, int kWidth, int kEstimates = 1, int kTargets = 1>
TASK_AWARE_INLINE void add_tile_of(int estimates, int targets, const Rows<E, T>& rows, int64_t steps,
                                   typename Vector<double, kWidth>::type* sums, int64_t stride) {
  if (kEstimates < estimates) {
    if constexpr (kEstimates < kMostEstimates<kWidth * sizeof(accumulate_t<T>)>) {
      add_tile_of<kKind, E, T, kWidth, kEstimates + 1, kTargets>(estimates, targets, rows, steps, sums,
                                                                 stride);
    }
  } else if (kTargets < targets) {
    if constexpr (kTargets < kTile) {
      add_tile_of<kKind, E, T, kWidth, kEstimates, kTargets + 1>(estimates, targets, rows, steps, sums,
                                                                 stride);
    }
  } else {
    add_tile<kKind, E, T, kWidth, kEstimates, kTargets>(rows, steps, sums, stride);
  }
}

/// The size of the groups that `count` rows fall into, as equal as they can be and none above `most`.
inline int group_size(int count, int most) {
  const int groups = (count + most - 1) / most;
  return groups == 0 ? 1 : (count + groups - 1) / groups;
}

template <PitKind kKind, typename T, int kBytes>
TASK_AWARE_INLINE void chunk_costs(const ChunkParams& p) {
  using Real = accumulate_t<T>;
  using E = std::conditional_t<kKind == PitKind::kBce, Real, T>;
  constexpr int kWidth = kBytes / sizeof(Real);
  constexpr int64_t kBlock = kWidth * kStepsPerFlush;
  using Wide = typename Vector<double, kWidth>::type;
  const auto* estimates = static_cast<const T*>(p.estimates);
  const auto* targets = static_cast<const T*>(p.targets);

  const int S = static_cast<int>(p.S);
  int existing_rows[kMaxSources], existing = 0;
  for (int j = 0; j < S; ++j) {
    if (p.exists == nullptr || p.exists[j]) existing_rows[existing++] = j;
  }
  const int estimate_group = group_size(S, kMostEstimates<kBytes>),
            target_group = group_size(existing, kTile);
  Wide sums[kMaxSources * kMaxSources];  // [estimate, existing target], added across at the end
  std::fill(sums, sums + S * existing, Wide{});

  // The last, incomplete vector is padded: to e = t for differences, to log e = log(1-e) = 0 for bce.
  E padded_first[kTile][kWidth], padded_second[kTile][kWidth];
  T padded_target[kTile][kWidth];
  alignas(64) Real logarithms[2][kKind == PitKind::kBce ? kTile : 1][kBlock];
  for (int64_t begin = 0; begin < p.length; begin += kBlock) {
    const int64_t length = std::min(kBlock, p.length - begin);
    const int64_t steps = length / kWidth, rest = length % kWidth;
    const auto pad = [&](const auto* row, auto* padded) {
      std::fill(padded, padded + kWidth, 0);
      std::copy(row + steps * kWidth, row + length, padded);
      return padded;
    };
    for (int i = 0; i < S; i += estimate_group) {
      const int estimates_here = std::min(estimate_group, S - i);
      Rows<E, T> whole, last;
      for (int k = 0; k < estimates_here; ++k) {
        const T* row = estimates + (i + k) * p.N + begin;
        if constexpr (kKind == PitKind::kBce) {
          for (int64_t n = 0; n < length; ++n) {
            const Real e = row[n];
            logarithms[0][k][n] = log_clamped(std::log(e));
            logarithms[1][k][n] = log_clamped(std::log1p(-e));
          }
          whole.first[k] = logarithms[0][k], whole.second[k] = logarithms[1][k];
        } else {
          whole.first[k] = whole.second[k] = row;
        }
        if (rest > 0) {
          last.first[k] = pad(whole.first[k], padded_first[k]);
          last.second[k] = pad(whole.second[k], padded_second[k]);
        }
      }
      for (int j = 0; j < existing; j += target_group) {
        const int targets_here = std::min(target_group, existing - j);
        for (int k = 0; k < targets_here; ++k) {
          whole.target[k] = targets + existing_rows[j + k] * p.N + begin;
          if (rest > 0) last.target[k] = pad(whole.target[k], padded_target[k]);
        }
        Wide* const to = sums + i * existing + j;
        add_tile_of<kKind, E, T, kWidth>(estimates_here, targets_here, whole, steps, to, existing);
        if (rest > 0) add_tile_of<kKind, E, T, kWidth>(estimates_here, targets_here, last, 1, to, existing);
      }
    }
  }

  std::fill(p.costs, p.costs + S * S, 0.0);
  for (int i = 0; i < S; ++i) {
    for (int k = 0; k < existing; ++k) {
      for (int lane = 0; lane < kWidth; ++lane)
        p.costs[existing_rows[k] * S + i] += sums[i * existing + k][lane];
    }
  }
}

template <typename T, int kBytes>
TASK_AWARE_INLINE void chunk_costs_of_kind(const ChunkParams& p) {
  switch (p.kind) {
    case PitKind::kMse:
      return chunk_costs<PitKind::kMse, T, kBytes>(p);
    case PitKind::kL1:
      return chunk_costs<PitKind::kL1, T, kBytes>(p);
    case PitKind::kBce:
      return chunk_costs<PitKind::kBce, T, kBytes>(p);
  }
}

template <int kBytes>
TASK_AWARE_INLINE void chunk_costs_of_type(const ChunkParams& p, ScalarType type) {
  switch (type) {
    case ScalarType::Double:
      return chunk_costs_of_kind<double, kBytes>(p);
    case ScalarType::BFloat16:
      return chunk_costs_of_kind<BFloat16, kBytes>(p);
    default:
      return chunk_costs_of_kind<float, kBytes>(p);
  }
}

#if TASK_AWARE_X86_LEVELS
__attribute__((target("arch=x86-64-v4,prefer-vector-width=512"))) void chunk_costs_v4(const ChunkParams& p,
                                                                                      ScalarType type) {
  chunk_costs_of_type<64>(p, type);
}
__attribute__((target("arch=x86-64-v3"))) void chunk_costs_v3(const ChunkParams& p, ScalarType type) {
  chunk_costs_of_type<32>(p, type);
}
#endif
void chunk_costs_base(const ChunkParams& p, ScalarType type) { chunk_costs_of_type<16>(p, type); }

using ChunkFunction = void (*)(const ChunkParams&, ScalarType);

ChunkFunction choose_chunk_costs() {
#if TASK_AWARE_X86_LEVELS
  if (__builtin_cpu_supports("x86-64-v4")) return chunk_costs_v4;
  if (__builtin_cpu_supports("x86-64-v3")) return chunk_costs_v3;
#endif
  return chunk_costs_base;
}

// Pair costs [S,S] of one item to its permutation and loss; `exists` may be null.
double match_item(const double* costs, const bool* exists, int S, int64_t N, int64_t* permutation) {
  for (int j = 0; j < S; ++j) permutation[j] = j;
  int64_t existing = 0;
  double largest = 0;
  for (int j = 0; j < S; ++j) {
    if (exists != nullptr && !exists[j]) continue;
    ++existing;
    for (int i = 0; i < S; ++i) {
      const double cost = costs[j * S + i];
      if (std::isnan(cost)) return std::numeric_limits<double>::quiet_NaN();
      if (!std::isinf(cost)) largest = std::max(largest, std::abs(cost));
    }
  }
  if (existing == 0) return 0;
  Assignment assignment;
  const int exponent = cost_exponent(largest);
  for (int j = 0; j < S; ++j) {
    const bool real = exists == nullptr || exists[j];
    for (int i = 0; i < S; ++i) assignment.set(j, i, real ? round_cost(costs[j * S + i], exponent) : 0);
  }
  assignment.solve(S, Serial{});
  double total = 0;
  for (int j = 0; j < S; ++j) {
    permutation[j] = assignment.match[j];
    if (exists == nullptr || exists[j]) total += costs[j * S + permutation[j]];
  }
  return total / (static_cast<double>(existing) * static_cast<double>(N));
}

std::tuple<Tensor, Tensor> pit_loss_cpu(const Tensor& estimates_in, const Tensor& targets_in,
                                        const std::optional<Tensor>& mask_in, int64_t kind) {
  check_pit_loss_arguments(estimates_in, targets_in, mask_in, kind);
  const Tensor estimates = torch::stable::contiguous(estimates_in);
  const Tensor targets = torch::stable::contiguous(targets_in);
  const std::optional<Tensor> mask = contiguous_if_given(mask_in);
  const bool* exists = mask.has_value() ? mask->const_data_ptr<bool>() : nullptr;
  const int64_t B = estimates.size(0), S = estimates.size(1), N = elements_from(estimates, 2);
  const auto type = estimates.scalar_type();

  Tensor loss = torch::stable::new_empty(estimates, {B}, pit_loss_type(estimates));
  Tensor permutation = torch::stable::new_empty(estimates, {B, S}, ScalarType::Long);
  if (B == 0) return {loss, permutation};

  static const ChunkFunction chunk_function = choose_chunk_costs();
  const int64_t chunks = (N + kChunk - 1) / kChunk, item_bytes = S * N * estimates.element_size();
  const auto* estimate_data = static_cast<const char*>(estimates.const_data_ptr());
  const auto* target_data = static_cast<const char*>(targets.const_data_ptr());
  std::vector<double> costs(B * chunks * S * S);
  parallel_for(0, B * chunks, grain_for(S * S * std::min(N, kChunk)), [&](int64_t first, int64_t last) {
    for (int64_t task = first; task < last; ++task) {
      const int64_t b = task / chunks, begin = task % chunks * kChunk;
      const int64_t offset = b * item_bytes + begin * static_cast<int64_t>(estimates.element_size());
      chunk_function(
          {estimate_data + offset, target_data + offset, exists ? exists + b * S : nullptr,
           costs.data() + task * S * S, S, N, std::min(kChunk, N - begin), static_cast<PitKind>(kind)},
          type);
    }
  });

  int64_t* match = permutation.mutable_data_ptr<int64_t>();
  dispatch_floating(loss.scalar_type(), "pit_loss", [&]<typename T>(TypeTag<T>) {
    T* value = loss.mutable_data_ptr<T>();
    parallel_for(0, B, grain_for(S * S * (S + chunks)), [&](int64_t first, int64_t last) {
      for (int64_t b = first; b < last; ++b) {
        double* item = costs.data() + b * chunks * S * S;
        for (int64_t c = 1; c < chunks; ++c) {
          for (int64_t k = 0; k < S * S; ++k) item[k] += item[c * S * S + k];
        }
        value[b] = static_cast<T>(match_item(item, exists ? exists + b * S : nullptr, S, N, match + b * S));
      }
    });
  });
  return {loss, permutation};
}

struct BackwardParams {
  const void* estimate;  // the matched row
  const void* target;
  void* grad_estimate;  // null where not wanted
  void* grad_target;
  int64_t length;
  double scale;
  bool streams;
};

template <PitKind kKind, typename T>
TASK_AWARE_INLINE void backward_row(const BackwardParams& p) {
  using Real = accumulate_t<T>;
  const auto* estimate = static_cast<const T*>(p.estimate);
  const auto* target = static_cast<const T*>(p.target);
  auto* grad_estimate = static_cast<T*>(p.grad_estimate);
  auto* grad_target = static_cast<T*>(p.grad_target);
  const Real scale = static_cast<Real>(p.scale);
  if (grad_estimate != nullptr) {
    write_values(grad_estimate, p.length, p.streams, [=](int64_t n) TASK_AWARE_LAMBDA {
      return static_cast<T>(scale * estimate_derivative<kKind, Real>(estimate[n], target[n]));
    });
  }
  if (grad_target != nullptr) {
    write_values(grad_target, p.length, p.streams, [=](int64_t n) TASK_AWARE_LAMBDA {
      return static_cast<T>(scale * target_derivative<kKind, Real>(estimate[n], target[n]));
    });
  }
}

TASK_AWARE_CLONES void backward_mse_float(const BackwardParams& p) { backward_row<PitKind::kMse, float>(p); }
TASK_AWARE_CLONES void backward_l1_float(const BackwardParams& p) { backward_row<PitKind::kL1, float>(p); }
TASK_AWARE_CLONES void backward_bce_float(const BackwardParams& p) { backward_row<PitKind::kBce, float>(p); }
TASK_AWARE_CLONES void backward_mse_bfloat16(const BackwardParams& p) {
  backward_row<PitKind::kMse, BFloat16>(p);
}

template <typename T>
void backward_row_of_kind(const BackwardParams& p, PitKind kind) {
  constexpr bool kFloat = std::is_same_v<T, float>;
  switch (kind) {
    case PitKind::kMse:
      if constexpr (kFloat) return backward_mse_float(p);
      if constexpr (std::is_same_v<T, BFloat16>) return backward_mse_bfloat16(p);
      return backward_row<PitKind::kMse, T>(p);
    case PitKind::kL1:
      if constexpr (kFloat) return backward_l1_float(p);
      return backward_row<PitKind::kL1, T>(p);
    case PitKind::kBce:
      if constexpr (kFloat) return backward_bce_float(p);
      return backward_row<PitKind::kBce, T>(p);
  }
}

std::tuple<Tensor, Tensor> pit_loss_backward_cpu(const Tensor& grad_in, const Tensor& loss_in,
                                                 const Tensor& estimates_in, const Tensor& targets_in,
                                                 const Tensor& permutation_in,
                                                 const std::optional<Tensor>& mask_in, int64_t kind,
                                                 bool wants_estimates, bool wants_targets) {
  check_pit_loss_arguments(estimates_in, targets_in, mask_in, kind);
  const Tensor grad = torch::stable::contiguous(grad_in), loss = torch::stable::contiguous(loss_in);
  const Tensor estimates = torch::stable::contiguous(estimates_in);
  const Tensor targets = torch::stable::contiguous(targets_in);
  const Tensor permutation = torch::stable::contiguous(permutation_in);
  const std::optional<Tensor> mask = contiguous_if_given(mask_in);
  const bool* exists = mask.has_value() ? mask->const_data_ptr<bool>() : nullptr;
  const int64_t B = estimates.size(0), S = estimates.size(1), N = elements_from(estimates, 2);
  const int64_t bytes = estimates.element_size(), chunks = (N + kChunk - 1) / kChunk;

  Tensor grad_estimates = wants_estimates ? torch::stable::new_empty(estimates, estimates.sizes())
                                          : torch::stable::new_empty(estimates, {0});
  Tensor grad_targets = wants_targets ? torch::stable::new_empty(targets, targets.sizes())
                                      : torch::stable::new_empty(targets, {0});
  if (B == 0) return {grad_estimates, grad_targets};

  std::vector<double> scales(B);
  dispatch_floating(loss.scalar_type(), "pit_loss", [&]<typename T>(TypeTag<T>) {
    const T *value = loss.const_data_ptr<T>(), *upstream = grad.const_data_ptr<T>();
    for (int64_t b = 0; b < B; ++b) {
      int64_t existing = S;
      if (exists != nullptr) existing = std::count(exists + b * S, exists + (b + 1) * S, true);
      scales[b] = std::isnan(value[b])
                      ? std::numeric_limits<double>::quiet_NaN()
                      : static_cast<double>(upstream[b]) / (static_cast<double>(existing) * N);
    }
  });
  const bool streams = (2 + wants_estimates + wants_targets) * estimates.numel() * bytes > kCacheBytes;
  const int64_t* match = permutation.const_data_ptr<int64_t>();
  const auto* estimate_data = static_cast<const char*>(estimates.const_data_ptr());
  const auto* target_data = static_cast<const char*>(targets.const_data_ptr());
  auto* grad_estimate_data =
      wants_estimates ? static_cast<char*>(grad_estimates.mutable_data_ptr()) : nullptr;
  auto* grad_target_data = wants_targets ? static_cast<char*>(grad_targets.mutable_data_ptr()) : nullptr;
  dispatch_floating(estimates.scalar_type(), "pit_loss", [&]<typename T>(TypeTag<T>) {
    parallel_for(0, B * S * chunks, grain_for(std::min(N, kChunk)), [&](int64_t first, int64_t last) {
      for (int64_t task = first; task < last; ++task) {
        const int64_t row = task / chunks, begin = task % chunks * kChunk, b = row / S;
        const int64_t length = std::min(kChunk, N - begin);
        const int64_t at_target = (row * N + begin) * bytes;
        const int64_t at_estimate = ((b * S + match[row]) * N + begin) * bytes;
        char* to_estimate = wants_estimates ? grad_estimate_data + at_estimate : nullptr;
        char* to_target = wants_targets ? grad_target_data + at_target : nullptr;
        if (exists != nullptr && !exists[row]) {
          if (wants_estimates) std::memset(to_estimate, 0, length * bytes);
          if (wants_targets) std::memset(to_target, 0, length * bytes);
          continue;
        }
        backward_row_of_kind<T>({estimate_data + at_estimate, target_data + at_target, to_estimate, to_target,
                                 length, scales[b], streams},
                                static_cast<PitKind>(kind));
      }
    });
  });
  return {grad_estimates, grad_targets};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(task_aware, m) {
  m.def("pit_loss(Tensor estimates, Tensor targets, Tensor? mask, int kind) -> (Tensor, Tensor)");
  m.def(
      "pit_loss_backward(Tensor grad, Tensor loss, Tensor estimates, Tensor targets, Tensor permutation, "
      "Tensor? mask, int kind, bool wants_estimates, bool wants_targets) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(task_aware, CPU, m) {
  m.impl("pit_loss", TORCH_BOX(&pit_loss_cpu));
  m.impl("pit_loss_backward", TORCH_BOX(&pit_loss_backward_cpu));
}

}  // namespace task_aware
