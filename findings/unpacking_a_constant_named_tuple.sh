#!/usr/bin/env bash
# A named tuple of tensors from a function marked by torch.compiler.assume_constant_result, in torch.compile(fullgraph=True).
#
# One would expect: it can be unpacked (*pair) as well as read by its names, as in torch 2.14.1.
# What happens: reading by name works; unpacking ends in an InternalTorchDynamoError without a message.
# Seen with torch 2.11.0, 2026-11-28.
#
# Needs a network and some minutes; exits with status 1 if this is no longer the case.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "torch==${TORCH:-2.11.0}" numpy

"$folder/venv/bin/python" - <<'PYTHON'
import sys
from typing import NamedTuple

import torch


class Pair(NamedTuple):
    a: torch.Tensor
    b: torch.Tensor


@torch.compiler.assume_constant_result
def pair():
    return Pair(torch.ones(3), torch.ones(3))


def unpacked(x):
    return torch.stack([x, *pair()]).sum(0)


def by_name(x):
    both = pair()
    return torch.stack([x, both.a, both.b]).sum(0)


found = {}
for function in (unpacked, by_name):
    try:
        found[function] = torch.compile(function, fullgraph=True, backend="eager")(torch.zeros(3)).tolist()
    except Exception as error:
        found[function] = type(error).__name__
    print(f"torch {torch.__version__}, {function.__name__}: {found[function]}")
sys.exit(found != {unpacked: "InternalTorchDynamoError", by_name: [2.0, 2.0, 2.0]})
PYTHON
