#!/usr/bin/env bash
# Two equal channels mixed down to one by FFmpeg's resampler (PyAV, `ffmpeg -ac 1`, and what is built upon them).
#
# One would expect: the mean of the channels, so equal channels keep their level.
# What happens: to float the channels are added with 0.707 each and nothing is normalised, so equal channels come out 3 dB
#   louder, above full scale; to int16 the same file comes out at its level. Of six channels the LFE (the fourth) is
#   left out, and the centre of a 5.1 file is as loud as ever.
# Seen with av 18.1.0, 2026-11-28.
#
# Needs a network and half a minute; exits with status 1 if this is no longer the case.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "av==${AV:-18.1.0}" numpy

"$folder/venv/bin/python" - <<'PYTHON'
import sys

import av
import numpy as np

tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)


def mono(samples, layout, kind):
    frame = av.AudioFrame.from_ndarray(samples.astype(np.float32), format="fltp", layout=layout)
    frame.sample_rate = 16000
    resampler = av.AudioResampler(format=kind, layout="mono", rate=16000)
    found = np.concatenate([x.to_ndarray()[0] for x in [*resampler.resample(frame), *resampler.resample(None)]])
    return np.std(found / (1 if kind == "fltp" else 32768)) / np.std(tone)


equal = {kind: mono(np.stack([tone, tone]), "stereo", kind) for kind in ("fltp", "s16p")}
print(f"two equal channels to one: {equal['fltp']:.2f} of their level in float, {equal['s16p']:.2f} in int16")
alone = [mono(np.where(np.arange(6)[:, None] == i, tone, 0), "5.1", "fltp") for i in range(6)]
print("each channel of 5.1 alone:", ", ".join(f"{x:.2f}" for x in alone))
sys.exit(not (equal["fltp"] > 1.4 and abs(equal["s16p"] - 1) < 0.01 and alone[3] == 0))
PYTHON
