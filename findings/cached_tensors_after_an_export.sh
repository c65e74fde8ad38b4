#!/usr/bin/env bash
# A module that keeps a table (a window, a filterbank) in functools.cache, and torch.export of it.
#
# One would expect: torch.export returns the exported module and leaves the rest of the program unchanged.
# What happens: the default, non-strict trace runs the Python code with tensors that have no data (FakeTensor). If the
#   table is first made there, the cache keeps a FakeTensor, and every later ordinary call returns a tensor without
#   data or fails with an error about mixing the two kinds. There is no warning. Calling the module once before the
#   export hides it.
# Seen with torch 2.13.0 (CPU) and 2.14.1, 2026-11-27.
#
# Needs a network and about three minutes; exits with status 1 if this is no longer the case.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "torch==${TORCH:-2.13.0}" numpy

"$folder/venv/bin/python" - <<'PYTHON'
import functools
import sys

import torch


@functools.cache
def window(length: int) -> torch.Tensor:
    return torch.hann_window(length)


class Windowed(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * window(x.shape[-1])


def outcome(length: int) -> str:
    try:
        return f"a {type(Windowed()(torch.ones(2, length))).__name__}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:100]}"


print(f"torch {torch.__version__}: the module called with ordinary tensors")
Windowed()(torch.ones(2, 8))
torch.export.export(Windowed(), (torch.ones(2, 8),))
before_first = outcome(8)
print(f"  after a call and an export          {before_first}")
torch.export.export(Windowed(), (torch.ones(2, 16),))
export_first = outcome(16)
print(f"  after an export before any call     {export_first}")
as_described = before_first == "a Tensor" and export_first != "a Tensor"
print("as described" if as_described else "no longer as described")
sys.exit(not as_described)
PYTHON
