#!/usr/bin/env bash
# Resampling int16 samples by soxr.
#
# One would expect: silence stays silence, and a constant stays constant, as with floats.
# What happens: dither is added, without an option to leave it out: silence becomes noise of one step. Whoever looks for
#   digital silence, or compares with a threshold of 0, finds none.
# Seen with soxr 1.1.0, 2026-11-28.
#
# Needs a network and half a minute; exits with status 1 if this is no longer the case.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "soxr==${SOXR:-1.1.0}" numpy

"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
import soxr

found = {}
for dtype in ("int16", "float32"):
    silence = soxr.resample(np.zeros(44100, dtype), 44100, 16000)
    found[dtype] = np.count_nonzero(silence)
    print(f"{dtype}: {found[dtype]} of {len(silence)} samples of resampled silence are not 0")
sys.exit(not (found["int16"] > 0 and found["float32"] == 0))
PYTHON
