// What emulation.py sets in the library of emulated operators.

#include "execution.h"

extern "C" {

[[gnu::visibility("default")]] void choose_schedule(int schedule) { cuda_host::set_schedules(schedule, 1); }

[[gnu::visibility("default")]] void choose_shared_limit(size_t bytes) { cuda_host::set_shared_limit(bytes); }

[[gnu::visibility("default")]] void choose_architecture(int architecture) {
  cuda_host::set_architecture(architecture);
}
}
