"""Scores the sources of one mixture in the layout of DCASE's task on sound scenes."""

from __future__ import annotations

import numpy as np

from task_aware.base.errors import DataError
from task_aware.data.audio import audio_header, read_audio
from task_aware.data.scenes import Scene
from task_aware.scoring.source_scores import SourceScores


def score_scene(scores: SourceScores, estimate: Scene, reference: Scene) -> float | None:
    """Adds a mixture to the scores; returns its CAPI-SDRi in dB, None if it scores nothing.

    As in the challenge, the first channel of every recording counts.

    Raises:
        DataError: a source has not the sample rate or the length of the mixture.
        RecordingError: a recording cannot be read.
    """
    rate = audio_header(reference.path).sample_rate
    mixture = read_audio(reference.path, rate, channel=0)

    def waveforms(scene: Scene) -> np.ndarray:
        found = np.zeros((len(scene.sources), len(mixture)), dtype=np.float32)
        for row, source in zip(found, scene.sources, strict=True):
            header = audio_header(source.path)
            samples = read_audio(source.path, header.sample_rate, channel=0)
            if header.sample_rate != rate or len(samples) != len(row):
                raise DataError(
                    f"{source.path} has {len(samples):,} samples at {header.sample_rate:,} Hz, but its mixture "
                    f"{reference.path} {len(mixture):,} at {rate:,} Hz; write it in the length and rate of that"
                )
            row[:] = samples
        return found

    labels = [[source.label for source in scene.sources] for scene in (estimate, reference)]
    return scores.add(waveforms(estimate), labels[0], waveforms(reference), labels[1], mixture)
