"""`python -m benchmarks.growth.by_hand FILE OUT`: the packaged model on a whole recording, with torchaudio and PyTorch.

What someone would write who has the model's modules, but not the package's operators, windows and streaming of files.
Writes frame probabilities as a NumPy file.
"""

from __future__ import annotations

import sys

import numpy as np
import soundfile
import torch
import torchaudio

from task_aware.data.offset import remove_offset
from task_aware.models.decoding import decode
from task_aware.models.detector import median_frames_of
from task_aware.models.opening import BUILTIN_SEPARATOR
from task_aware.models.system import Separator


def main(recording: str, out: str) -> None:
    separator = Separator.from_checkpoint(BUILTIN_SEPARATOR, backend="reference")
    front_end = separator.detector.feature_config
    samples, rate = soundfile.read(recording, dtype="float32")
    waveform = torchaudio.functional.resample(torch.from_numpy(samples), rate, front_end.sample_rate)
    to_mel = torchaudio.transforms.MelSpectrogram(
        sample_rate=front_end.sample_rate,
        n_fft=front_end.n_fft,
        hop_length=front_end.hop,
        n_mels=front_end.n_mels,
        f_min=front_end.f_min,
        f_max=front_end.f_max,
        window_fn=torch.hamming_window,
        wkwargs={"periodic": False},
        power=1.0,
        norm=None,
        mel_scale="slaney",
    )
    mel = to_mel(torch.from_numpy(remove_offset(waveform.numpy(), front_end.sample_rate)))
    frame = separator.analyse(mel[None]).merged[0]
    detector = separator.detector
    decode(frame, detector.labels, detector.frame_seconds, median_frames=median_frames_of(detector))
    np.save(out, frame.numpy())


if __name__ == "__main__":
    main(*sys.argv[1:])
