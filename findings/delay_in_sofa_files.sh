#!/usr/bin/env bash
# Impulse responses whose delays stand in Data.Delay of a SOFA file (AES69), read by pyfar.
#
# One would expect: responses with their delays, or the delays beside them.
# What happens: `pyfar.io.read_sofa` returns the responses without them, and no warning. The difference between the ears,
#   or between microphones, is lost. sofar has them.
# Seen with pyfar 0.8.1, sofar 1.3.0, 2026-11-28.
#
# Needs a network and two minutes; exits with status 1 if this is no longer the case.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "pyfar==${PYFAR:-0.8.1}" "sofar==${SOFAR:-1.3.0}" numpy

cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
import pyfar
import sofar

sofa = sofar.Sofa("SimpleFreeFieldHRIR")
sofa.Data_IR = np.zeros((1, 2, 64))
sofa.Data_IR[..., 10] = 1
sofa.Data_Delay = np.array([[5.0, 7.0]])
sofa.SourcePosition = np.array([[0, 0, 1.0]])
sofar.write_sofa("a.sofa", sofa)
signal, *others = pyfar.io.read_sofa("a.sofa")
peaks = [int(x.argmax()) for x in signal.time.reshape(2, -1)]
delays = sofar.read_sofa("a.sofa", verbose=False).Data_Delay.tolist()
print(f"responses with a peak at sample 10 and delays {delays}: pyfar's have it at {peaks}, with {len(others)} coordinates")
sys.exit(peaks != [10, 10])
PYTHON
