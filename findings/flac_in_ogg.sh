#!/usr/bin/env bash
# FLAC in an Ogg container (.oga) as FFmpeg writes it, read by soundfile.
#
# One would expect: libsndfile reads both FLAC and Ogg, and lists the combination, so it is read.
# What happens: LibsndfileError, "unknown error in flac decoder". FFmpeg reads it, sample by sample as written.
# Seen with soundfile 0.14.0 (libsndfile 1.2.2) and av 18.1.0, 2026-11-28.
#
# Needs a network and half a minute; exits with status 1 if this is no longer the case.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "av==${AV:-18.1.0}" "soundfile==${SOUNDFILE:-0.14.0}" numpy

cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import av
import numpy as np
import soundfile

samples = (3000 * np.sin(2 * np.pi * 440 * np.arange(3 * 4608) / 44100)).astype(np.int16)
with av.open("a.oga", "w", format="ogg") as file:
    stream = file.add_stream("flac", rate=44100)
    stream.codec_context.layout = "mono"
    stream.codec_context.format = "s16"
    for start in range(0, len(samples), 4608):
        frame = av.AudioFrame.from_ndarray(samples[None, start : start + 4608], format="s16", layout="mono")
        frame.sample_rate, frame.pts = 44100, start
        for packet in stream.encode(frame):
            file.mux(packet)
    for packet in stream.encode(None):
        file.mux(packet)

with av.open("a.oga") as file:
    decoded = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])
print(f"FFmpeg reads {len(decoded)} of {len(samples)} samples, equal: {np.array_equal(decoded, samples)}")
try:
    print(f"soundfile reads {len(soundfile.read('a.oga')[0])} samples")
    error = ""
except soundfile.SoundFileError as found:
    error = str(found)
    print(f"soundfile: {error}")
sys.exit(not (np.array_equal(decoded, samples) and error))
PYTHON
