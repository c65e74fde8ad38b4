#pragma once

// A function with a stack of its own, which runs when it is resumed and until it waits. The address and the
// thread sanitizer are told of each change; to the latter, fibres are threads, ordered by nothing but
// happened_before() and after().

#include <cstddef>
#include <memory>

#if defined(CUDA_HOST_ADDRESS)
#include <sanitizer/common_interface_defs.h>
#elif defined(CUDA_HOST_THREAD)
#include <sanitizer/tsan_interface.h>
#endif

namespace cuda_host {

class Fibre {
 public:
  /// `body` never returns.
  explicit Fibre(void (*body)());

  /// Runs it until it waits. One at a time, and never from within a fibre.
  void resume();

  /// Called by the fibre itself.
  void wait();

 private:
  using Place = void* [5];  // where to go on, as __builtin_setjmp writes it

  struct Side {
    Place place;
#if defined(CUDA_HOST_ADDRESS)
    const void* stack;
    size_t stack_bytes;
    void* fake_stack;
#elif defined(CUDA_HOST_THREAD)
    void* handle;
#endif
  };

  static void change(Side& from, Side& to, void (*how)(Side& from, Side& to));
  static void jump(Side& from, Side& to);
  static void begin(Side& from, Side& to);
  static void enter();

  static Side resumer_;
  static Fibre* entering_;

  void (*body_)();
  std::unique_ptr<char[]> stack_;
  Side side_{};
  bool begun_ = false;
};

/// All that the running fibre did so far is done before what others do after(place).
inline void happened_before([[maybe_unused]] void* place) {
#if defined(CUDA_HOST_THREAD)
  __tsan_release(place);
#endif
}

inline void after([[maybe_unused]] void* place) {
#if defined(CUDA_HOST_THREAD)
  __tsan_acquire(place);
#endif
}

}  // namespace cuda_host
