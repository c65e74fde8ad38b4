#!/usr/bin/env bash
# The same tensors and metadata, saved twice as safetensors.
#
# One would expect: the same bytes, so that a checksum tells whether two models are the same.
# What happens: metadata of two or more entries are written in an arbitrary order, which differs from save to save. The
#   tensors are in the same order in each.
# Seen with safetensors 0.8.0 and numpy 2.4.6, 2026-11-28.
#
# Needs a network and half a minute; exits with status 1 if this is no longer the case.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "safetensors==${SAFETENSORS:-0.8.0}" numpy

"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
from safetensors.numpy import save

weights = {"a": np.zeros(4, np.float32), "b": np.ones(3, np.float32)}
found = {
    "no metadata": {},
    "one entry": {"step": "1"},
    "two entries": {"step": "1", "labels": "Cat, Dog"},
}
files = {name: len({save(weights, metadata) for _ in range(50)}) for name, metadata in found.items()}
for name, count in files.items():
    print(f"{name}: {count} different files of 50 saves")
sys.exit(not (files["no metadata"] == files["one entry"] == 1 and files["two entries"] > 1))
PYTHON
