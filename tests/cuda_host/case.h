#pragma once

// What a test asks of a kernel, and its answer. host.py writes cases to standard input: lines of
// "kind name value", an array's bytes after its line, "end" after each case. Outputs go to standard output.

#include <torch/headeronly/util/BFloat16.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <list>
#include <map>
#include <string>
#include <vector>

#include "execution.h"

namespace cuda_host {

template <typename T>
struct Type {};

#if defined(CUDA_HOST_THREAD) || defined(CUDA_HOST_COUNTS)
inline constexpr bool kAllTypes = false;
#else
inline constexpr bool kAllTypes = true;
#endif

class Case {
 public:
  /// Reads the next case; false after the last.
  bool read();
  /// Writes its outputs.
  void answer() const;

  /// The word, number or array of that name; an array that was not given is null.
  const std::string& word(const char* name) const;
  int64_t integer(const char* name) const;
  double real(const char* name) const;
  template <typename T>
  const T* array(const char* name) const {
    return static_cast<const T*>(find_array(name));
  }

  /// Device memory that the test reads afterwards.
  template <typename T>
  T* output(const char* name, int64_t count) {
    outputs_.push_back({name, device_memory(name, count * sizeof(T)), count * sizeof(T)});
    return static_cast<T*>(outputs_.back().data);
  }

  /// function(Type<T>) for the case's dtype. Which threads access what does not depend on it: the builds that look at
  /// that alone know float32 only, which takes half the time to compile.
  template <typename Function>
  void real_type(Function&& function) const {
    if (word("dtype") == "float32") return function(Type<float>{});
    if constexpr (kAllTypes) {
      if (word("dtype") == "float64") return function(Type<double>{});
    }
    fail("these kernels have no dtype %s", word("dtype").c_str());
  }
  template <typename Function>
  void floating_type(Function&& function) const {
    if constexpr (kAllTypes) {
      if (word("dtype") == "bfloat16") return function(Type<torch::headeronly::BFloat16>{});
    }
    real_type(function);
  }

 private:
  struct Input {
    std::string value;
    void* data = nullptr;
  };
  struct Output {
    const char* name;
    void* data;
    size_t bytes;
  };

  void* find_array(const char* name) const;

  std::list<std::string> names_;  // of the arrays, which device memory goes by
  std::map<std::string, Input> inputs_;
  std::vector<Output> outputs_;
};

/// The main function of a program of kernels/: calls run(Case&) for each case.
template <typename Function>
int run_cases(Function&& run) {
  report_aborts();
  try {
    for (Case test; test.read(); test.answer()) run(test);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    std::_Exit(1);
  }
  return 0;
}

}  // namespace cuda_host
