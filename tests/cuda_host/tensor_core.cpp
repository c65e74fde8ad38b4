#include "tensor_core.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "execution.h"

namespace cuda_host {
namespace {

constexpr int kExponentOfZero = -1000, kBits = 24;

int exponent(float x) {
  const int biased = static_cast<int>(std::bit_cast<uint32_t>(x) >> 23 & 0xff);
  return x == 0 ? kExponentOfZero : std::max(biased, 1) - 127;
}

double power_of_two(int exponent) {
  return std::bit_cast<double>(static_cast<uint64_t>(exponent + 1023) << 52);
}

float cut_off(double x) {
  const auto nearest = static_cast<float>(x);
  return std::fabs(static_cast<double>(nearest)) > std::fabs(x) ? std::nextafterf(nearest, 0.0f) : nearest;
}

struct Factors {
  float a, b;
};

template <size_t kCount>
float add(float sum, const std::array<Factors, kCount>& products) {
  int largest = exponent(sum);
  double in_double = sum;
  for (const auto& [a, b] : products) {
    largest = std::max(largest, exponent(a) + exponent(b));
    in_double += static_cast<double>(a) * b;
  }
  if (!std::isfinite(in_double)) return static_cast<float>(in_double);
  if (largest <= kExponentOfZero / 2) return 0;
  const double scale = power_of_two(kBits - largest);
  auto total = static_cast<int64_t>(sum * scale);
  for (const auto& [a, b] : products) total += static_cast<int64_t>(static_cast<double>(a) * b * scale);
  return cut_off(static_cast<double>(total) * power_of_two(largest - kBits));
}

/// What a lane brings. Two of each thread: none returns to the first before its warp has left it for the second.
struct Fragments {
  std::array<uint32_t, 4> a;
  std::array<uint32_t, 2> b;
};
std::array<std::array<Fragments, 2>, 1024> brought;
std::array<bool, brought.size()> second_turn;

/// number(word, k) is the k-th of the kPerWord numbers of a word.
template <size_t kPerWord, typename Number>
void multiply_add(const char* operation, float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                  Number number) {
  Fragments& mine = brought[threadIdx.x][second_turn[threadIdx.x] ^= true];
  mine = {std::to_array(a), std::to_array(b)};
  const Lanes lanes = exchange(operation, 0xffffffffu, reinterpret_cast<uintptr_t>(&mine));
  const auto of = [&](int lane) -> const Fragments& { return *reinterpret_cast<Fragments*>(lanes[lane]); };
  const int group = lane() / 4, pair = lane() % 4;
  for (int i = 0; i < 4; ++i) {
    const int column = 2 * pair + i % 2;
    for (const size_t half : {0, 1}) {
      std::array<Factors, 4 * kPerWord> products;
      for (size_t k = 0; k < products.size(); ++k) {
        const int member = static_cast<int>(k / kPerWord);
        products[k] = {number(of(4 * group + member).a[i / 2 + 2 * half], k % kPerWord),
                       number(of(4 * column + member).b[half], k % kPerWord)};
      }
      sum[i] = add(sum[i], products);
    }
  }
}

}  // namespace

void multiply_add_bfloat16(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  multiply_add<2>("mma.m16n8k16", sum, a, b, [](uint32_t word, size_t k) {
    return std::bit_cast<float>(k == 0 ? word << 16 : word & 0xffff0000u);
  });
}

void multiply_add_tf32(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  multiply_add<1>("mma.m16n8k8", sum, a, b,
                  [](uint32_t word, size_t) { return std::bit_cast<float>(word & 0xffffe000u); });
}

}  // namespace cuda_host
