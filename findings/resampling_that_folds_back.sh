#!/usr/bin/env bash
# Resampling from 44.1 to 16 kHz with torchaudio's default filter.
#
# One would expect: what is above 8 kHz is gone, as from any resampler for audio.
# What happens: the filter is 6 zero crossings long. A tone of 8.5 kHz comes back at 7.5 kHz, 11 dB down; soxr's, at its
#   usual quality, is below -100 dB.
# Seen with torchaudio 2.11.0, 2026-11-28.
#
# Needs a network and three minutes; exits with status 1 if this is no longer the case.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "torchaudio==${TORCHAUDIO:-2.11.0}" "torch==${TORCH:-2.11.0}" soxr numpy

cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
import soxr
import torch
import torchaudio

tone = np.sin(2 * np.pi * 8500 * np.arange(2 * 44100) / 44100)
folded = {
    "torchaudio": torchaudio.functional.resample(torch.from_numpy(tone), 44100, 16000).numpy(),
    "soxr": soxr.resample(tone, 44100, 16000),
}
level = {name: 20 * np.log10(np.std(x[4000:-4000]) / np.std(tone) + 1e-12) for name, x in folded.items()}
for name, value in level.items():
    print(f"{name}: a tone of 8.5 kHz comes back at {value:.0f} dB")
sys.exit(not (level["torchaudio"] > -20 and level["soxr"] < -90))
PYTHON
