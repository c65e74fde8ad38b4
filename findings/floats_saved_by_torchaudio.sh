#!/usr/bin/env bash
# Float samples saved as WAV by torchaudio, which leaves writing to torchcodec since 2.9.
#
# One would expect: floats, as torchaudio wrote them before; where not, a warning.
# What happens: 16 bits. What is beyond full scale is clipped, as separated sources often are, and what is below 1/65536
#   becomes silence; no warning. `encoding="PCM_F", bits_per_sample=32` changes nothing, but warns.
# Seen with torchaudio 2.11.0, torchcodec 0.11.1, torch 2.11.0 and the FFmpeg of av 18.1.0, 2026-11-28.
#
# Needs a network and about five minutes; exits with status 1 if this is no longer the case.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "torch==${TORCH:-2.11.0}" "torchaudio==2.11.0" \
  "torchcodec==${TORCHCODEC:-0.11.1}" "av==18.1.0" "soundfile==0.14.0" numpy

# torchcodec brings no FFmpeg; that of av has other file names
libraries=$(echo "$folder"/venv/lib/python3*/site-packages/av.libs)
for file in "$libraries"/lib{av,sw}*.so.*; do
  name=$(basename "$file" | sed -E 's/-[0-9a-f]+(\.so\.[0-9]+).*/\1/')
  ln -s "$file" "$folder/$name"
done

cd "$folder"
LD_LIBRARY_PATH="$folder:$libraries" "$folder/venv/bin/python" - <<'PYTHON'
import sys
import warnings

import soundfile
import torch
import torchaudio
import torchcodec

samples = torch.tensor([[0.25, 1.7, -2.0, 1e-5]]).repeat(1, 4000)


def saved(**options):
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        torchaudio.save("a.wav", samples, 16000, **options)
    found = soundfile.read("a.wav")[0][:4].tolist()
    print(f"{options}: {soundfile.info('a.wav').subtype}, {len(warned)} warnings, {[round(x, 5) for x in found]}")
    return soundfile.info("a.wav").subtype, found[1] < 1, found[3], len(warned)


print(f"torchaudio {torchaudio.__version__}, torchcodec {torchcodec.__version__}: {samples[0, :4].tolist()} become")
plain, floats = saved(), saved(encoding="PCM_F", bits_per_sample=32)
sys.exit(plain != ("PCM_16", True, 0.0, 0) or floats[:3] != ("PCM_16", True, 0.0))
PYTHON
