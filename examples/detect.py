"""Prints the events in a recording and writes its separated sources as WAV files.

python examples/detect.py recording.wav                          # with the small separator included in the package
python examples/detect.py recording.wav separator.safetensors
"""

import sys
from pathlib import Path

import soundfile

import task_aware
from task_aware.models.opening import BUILTIN_SEPARATOR


def main(recording: str, checkpoint: str | Path = BUILTIN_SEPARATOR) -> None:
    predictor = task_aware.Predictor(checkpoint)
    samples, sample_rate = soundfile.read(recording, dtype="float32", always_2d=True)
    waveform = samples.T  # [channels, N]
    for event in predictor.detect(waveform, sample_rate):
        print(f"{event.onset:7.2f} s to {event.offset:7.2f} s  {event.label}")
    for name, source in zip(predictor.source_names, predictor.separate(waveform, sample_rate), strict=True):
        if source.any():  # of a class that is not plausible, it is silent
            soundfile.write(Path(recording).with_suffix(f".{name}.wav"), source, sample_rate, subtype="FLOAT")


if __name__ == "__main__":
    main(*sys.argv[1:])
