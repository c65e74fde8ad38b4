#include "case.h"

#include <iostream>

#include "counting.h"

namespace cuda_host {

bool Case::read() {
  free_device_memory();
  names_.clear();
  inputs_.clear();
  outputs_.clear();
  std::string kind, name;
  while (std::cin >> kind && kind != "end") {
    Input input;
    std::cin >> name >> input.value;
    if (kind == "array") {
      const size_t bytes = std::stoull(input.value);
      size_t shift = 0;
      std::cin >> shift;
      names_.push_back(name);
      input.data = static_cast<char*>(device_memory(names_.back().c_str(), shift + bytes)) + shift;
      std::cin.ignore();  // the end of the line
      std::cin.read(static_cast<char*>(input.data), static_cast<std::streamsize>(bytes));
    }
    inputs_[name] = input;
  }
  if (inputs_.empty()) return false;
  set_schedules(0, static_cast<int>(integer("schedules")));
  return true;
}

void Case::answer() const {
  const std::string counts = take_counts();
  std::cout << "counts " << counts.size() << '\n' << counts;
  for (const Output& output : outputs_) {
    std::cout << output.name << ' ' << output.bytes << '\n';
    std::cout.write(static_cast<const char*>(output.data), static_cast<std::streamsize>(output.bytes));
  }
  std::cout << "end 0\n" << std::flush;
}

const std::string& Case::word(const char* name) const {
  const auto found = inputs_.find(name);
  if (found == inputs_.end()) fail("the test does not say %s", name);
  return found->second.value;
}

int64_t Case::integer(const char* name) const { return std::stoll(word(name)); }

double Case::real(const char* name) const { return std::stod(word(name)); }

void* Case::find_array(const char* name) const {
  const auto found = inputs_.find(name);
  return found == inputs_.end() ? nullptr : found->second.data;
}

}  // namespace cuda_host
