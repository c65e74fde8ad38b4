#!/usr/bin/env bash
# Rooms by pyroomacoustics with ray tracing, made twice after the same numpy.random.seed.
#
# One would expect: the same room response twice, as without ray tracing.
# What happens: the rays are drawn by a generator of pyroomacoustics itself; the two responses differ by as much as their
#   reflections are high.
# Seen with pyroomacoustics 0.10.1, 2026-11-28.
#
# Needs a network and a minute; exits with status 1 if this is no longer the case.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "pyroomacoustics==${PYROOMACOUSTICS:-0.10.1}" numpy

"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
import pyroomacoustics as pra


def response(ray_tracing):
    np.random.seed(0)
    room = pra.ShoeBox([6, 5, 3], fs=16000, materials=pra.Material(0.3), max_order=2, ray_tracing=ray_tracing)
    room.add_source([1, 1, 1])
    room.add_microphone([4, 3, 1.5])
    room.compute_rir()
    return room.rir[0][0]


found = {}
for ray_tracing in (False, True):
    first, second = response(ray_tracing), response(ray_tracing)
    n = min(len(first), len(second))
    found[ray_tracing] = np.abs(first[:n] - second[:n]).max() / np.abs(first).max()
    print(f"ray_tracing={ray_tracing}: two responses differ by {found[ray_tracing]:.2f} of the largest sample")
sys.exit(not (found[False] == 0 and found[True] > 0.01))
PYTHON
