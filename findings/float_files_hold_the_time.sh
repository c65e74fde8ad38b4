#!/usr/bin/env bash
# The same samples written twice by soundfile, two seconds apart.
#
# One would expect: the same bytes, as of 16-bit WAV and FLAC; or at least of formats without compression.
# What happens: WAV and AIFF of floats hold the second of writing (in the PEAK chunk), and Ogg a random number. So a
#   checksum of results tells nothing, and tools that keep versions of data store every file again.
# Seen with soundfile 0.14.0 (libsndfile 1.2.2), 2026-11-28.
#
# Needs a network and half a minute; exits with status 1 if this is no longer the case.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "soundfile==${SOUNDFILE:-0.14.0}" numpy

"$folder/venv/bin/python" - <<'PYTHON'
import io
import sys
import time

import numpy as np
import soundfile

KINDS = [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("WAV", "FLOAT"), ("AIFF", "FLOAT"), ("OGG", "VORBIS")]
samples = np.sin(np.arange(16000) / 10)


def written():
    files = []
    for container, subtype in KINDS:
        file = io.BytesIO()
        soundfile.write(file, samples, 16000, format=container, subtype=subtype)
        files.append(file.getvalue())
    return files


first = written()
time.sleep(2)
same = [one == other for one, other in zip(first, written(), strict=True)]
print(f"soundfile {soundfile.__version__}, {soundfile.__libsndfile_version__}")
for kind, equal in zip(KINDS, same, strict=True):
    print(f"{' '.join(kind)}: {'the same bytes' if equal else 'other bytes'}")
sys.exit(same != [True, True, False, False, False])
PYTHON
