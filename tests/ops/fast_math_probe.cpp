// The exp and log of csrc behind a C interface, for test_fast_math.py.

#include "cpu/fast_math.h"

using namespace task_aware;

namespace {

enum class Function { kExp, kLog };

struct Values {
  Function function;
  int64_t count;
  const float* in;
  float* out;
};

struct Apply {
  template <int kBytes>
  static TASK_AWARE_INLINE void run(const Values& p) {
    constexpr int kWidth = kBytes / sizeof(float);
    for_vectors<kWidth>(p.count, [&](int64_t n, int count) TASK_AWARE_LAMBDA {
      const auto x = load<float, kWidth>(p.in + n, count);
      store(p.out + n, p.function == Function::kExp ? fast_exp(x) : fast_log(x), count);
    });
  }
};

}  // namespace

extern "C" {

void exp_of(int64_t count, const float* in, float* out) {
  run_vectorised<Apply>(Values{Function::kExp, count, in, out});
}
void log_of(int64_t count, const float* in, float* out) {
  run_vectorised<Apply>(Values{Function::kLog, count, in, out});
}
}
