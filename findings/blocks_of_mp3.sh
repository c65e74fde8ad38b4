#!/usr/bin/env bash
# An mp3 recording read block by block, by `soundfile.blocks` or by `SoundFile.read` in a loop.
#
# One would expect: the blocks, joined, are the recording as `soundfile.read` gives it.
# What happens: most samples are others, by up to the amplitude of the sound; their number is right, and there is no error.
#   soundfile seeks to its own position after each read, and the mp3 decoder begins anew there, without what the frames
#   before had kept for these. In blocks of 0.3 s of a tone, three samples of four differ by more than 0.001. The longer
#   the blocks, the fewer. WAV and FLAC are exact.
# Seen with soundfile 0.14.0 (libsndfile 1.2.2), 2026-11-28.
#
# Needs a network and half a minute; exits with status 1 if this is no longer the case.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "soundfile==${SOUNDFILE:-0.14.0}" numpy

cd "$folder"
"$folder/venv/bin/python" - 2>messages.txt <<'PYTHON'
import sys

import numpy as np
import soundfile

RATE = 16000
tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(12 * RATE) / RATE)
share = {}
for name in ("a.mp3", "a.flac"):
    soundfile.write(name, tone, RATE)
    whole, _ = soundfile.read(name)
    joined = np.concatenate(list(soundfile.blocks(name, blocksize=4800)))
    assert len(joined) == len(whole)
    apart = np.abs(joined - whole)
    share[name] = (apart > 1e-3).mean()
    print(f"{name}: {100 * share[name]:.0f} % of the samples differ, by up to {apart.max():.2f}")
sys.exit(not (share["a.mp3"] > 0.1 and share["a.flac"] == 0))
PYTHON
