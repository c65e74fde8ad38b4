// The Python module `task_aware._C`. Importing it registers the operators' schemas and CPU kernels, which
// stand in cpu/<op>.cpp; the module itself only tells what was built.

#include <pybind11/pybind11.h>

#include "build_config.h"

PYBIND11_MODULE(_C, module) {
  module.doc() = "Schemas and CPU kernels of task_aware.ops.";
  module.def(
      "build_info",
      [] {
        pybind11::dict info;
        info["version"] = TASK_AWARE_VERSION;
        info["compiler"] = TASK_AWARE_COMPILER;
        info["torch"] = TASK_AWARE_TORCH_VERSION;
        info["cuda"] = TASK_AWARE_CUDA_VERSION;
        info["cuda_absent"] = TASK_AWARE_CUDA_ABSENT;
        info["architectures"] = TASK_AWARE_ARCHITECTURES;
        info["sources"] = TASK_AWARE_SOURCES_DIGEST;
        info["schemas"] = TASK_AWARE_SCHEMAS_DIGEST;
        return info;
      },
      "What was built: versions, architectures, or why the CUDA kernels were not.");
}
