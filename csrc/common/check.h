#pragma once

// Checks behind Python's own validation. A message is one sentence: the operator, what was given, what is
// wanted.

#include <sstream>
#include <stdexcept>

namespace task_aware {

template <typename... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

#define TASK_AWARE_CHECK(condition, ...) \
  do {                                   \
    if (!(condition)) {                  \
      ::task_aware::fail(__VA_ARGS__);   \
    }                                    \
  } while (0)

}  // namespace task_aware
