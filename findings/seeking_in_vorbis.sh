#!/usr/bin/env bash
# Reading parts of an Ogg Vorbis recording by seeking in one open file.
#
# One would expect: the samples of the whole recording, as the position that `tell` gives.
# What happens: after some 5 to 10 of 60 seeks the samples that follow are others, as loud as the signal, for hundreds of
#   samples or, near the end, for as long as one reads, though `tell` is right. FLAC and WAV are exact.
# Seen with soundfile 0.14.0 (libsndfile 1.2.2), 2026-11-28.
#
# Needs a network and half a minute; exits with status 1 if this is no longer the case.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "soundfile==${SOUNDFILE:-0.14.0}" numpy

cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
import soundfile

RATE = 16000
generator = np.random.default_rng(0)
samples = 0.3 * np.sin(2 * np.pi * 440 * np.arange(30 * RATE) / RATE)
starts = generator.integers(0, len(samples) - RATE, 60)
wrong = {}
for name in ("a.ogg", "a.flac"):
    soundfile.write(name, samples, RATE)
    whole, _ = soundfile.read(name)
    wrong[name] = 0
    with soundfile.SoundFile(name) as file:
        for start in starts:
            file.seek(start)
            assert file.tell() == start
            wrong[name] += bool((np.abs(file.read(2000) - whole[start : start + 2000]) > 1e-4).any())
    print(f"{name}: wrong samples after {wrong[name]} of {len(starts)} seeks")
sys.exit(not (wrong["a.ogg"] > 0 and wrong["a.flac"] == 0))
PYTHON
