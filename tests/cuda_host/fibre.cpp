#include "fibre.h"

#include <ucontext.h>

namespace cuda_host {
namespace {

constexpr size_t kStackBytes = 256 * 1024;

// Not swapcontext, which asks the operating system each time. GCC wants the halves in two functions.
[[noreturn, gnu::noinline]] void go_on_at(void** place) { __builtin_longjmp(place, 1); }

}  // namespace

Fibre::Side Fibre::resumer_{};
Fibre* Fibre::entering_ = nullptr;

Fibre::Fibre(void (*body)()) : body_(body), stack_(new char[kStackBytes]) {
#if defined(CUDA_HOST_ADDRESS)
  side_.stack = stack_.get();
  side_.stack_bytes = kStackBytes;
#elif defined(CUDA_HOST_THREAD)
  resumer_.handle = __tsan_get_current_fiber();
  side_.handle = __tsan_create_fiber(0);
#endif
}

void Fibre::resume() {
  entering_ = this;
  change(resumer_, side_, begun_ ? jump : begin);
}

void Fibre::wait() { change(side_, resumer_, jump); }

void Fibre::change(Side& from, Side& to, void (*how)(Side& from, Side& to)) {
#if defined(CUDA_HOST_ADDRESS)
  __sanitizer_start_switch_fiber(&from.fake_stack, to.stack, to.stack_bytes);
#elif defined(CUDA_HOST_THREAD)
  __tsan_switch_to_fiber(to.handle, __tsan_switch_to_fiber_no_sync);
#endif
  how(from, to);
#if defined(CUDA_HOST_ADDRESS)
  __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

[[gnu::noinline]] void Fibre::jump(Side& from, Side& to) {
  if (__builtin_setjmp(from.place) == 0) go_on_at(to.place);
}

/// The first time, on the fibre's own stack.
[[gnu::noinline]] void Fibre::begin(Side& from, Side&) {
  ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = entering_->stack_.get();
  context.uc_stack.ss_size = kStackBytes;
  context.uc_link = nullptr;
  makecontext(&context, enter, 0);
  entering_->begun_ = true;
  if (__builtin_setjmp(from.place) == 0) setcontext(&context);
}

void Fibre::enter() {
#if defined(CUDA_HOST_ADDRESS)
  __sanitizer_finish_switch_fiber(nullptr, &resumer_.stack, &resumer_.stack_bytes);
#endif
  entering_->body_();
}

}  // namespace cuda_host
