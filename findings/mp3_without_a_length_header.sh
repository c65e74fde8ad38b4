#!/usr/bin/env bash
# An mp3 file with a variable bit rate and no Xing header, as streaming recorders and cutters write it, read by soundfile.
#
# One would expect: all of it is read, as players do, or an error.
# What happens: libsndfile estimates the length from the first frames and stops there. A file of 60 s is 16 s long, in
#   `info` and in `read`, without an error or a warning. The same frames behind a Xing header are 60 s.
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

RATE, SECONDS = 44100, 60
KBPS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)  # of MPEG 1, layer 3

time = np.arange(RATE * SECONDS) / RATE
noise = 0.001 * np.random.default_rng(0).standard_normal(len(time))
beeps = 0.3 * np.sin(2 * np.pi * 440 * time) * np.sin(np.pi * time) ** 8
soundfile.write("whole.mp3", beeps + noise, RATE, bitrate_mode="VARIABLE", compression_level=0.5)
with open("whole.mp3", "rb") as file:
    data = file.read()
length = 144000 * KBPS[data[2] >> 4] // RATE + (data[2] >> 1 & 1)  # of the first frame, which holds the header
assert b"Xing" in data[:length]
with open("without.mp3", "wb") as file:
    file.write(data[length:])

found = {}
for name in ("whole.mp3", "without.mp3"):
    found[name] = len(soundfile.read(name)[0]) / RATE
    print(f"{name}: info says {soundfile.info(name).duration:.1f} s, read gives {found[name]:.1f} s of {SECONDS}")
sys.exit(found["whole.mp3"] < 0.99 * SECONDS or found["without.mp3"] > 0.9 * SECONDS)
PYTHON
