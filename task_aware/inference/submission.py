"""`eval_results.json`: what a submission to DCASE 2026 task 4 holds beside waveforms, the probability of each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from task_aware.base.files import replacing
from task_aware.base.tables import read_rows, write_table
from task_aware.inference.outputs import Outputs
from task_aware.inference.predictor import Predictor
from task_aware.inference.recordings import Recording


def write_estimates(
    path: Path, files: Mapping[str, Path], labels: Mapping[str, str], heard: Mapping[str, float]
) -> None:
    """Writes the table of a recording's estimates: filename, label, probability.

    Args:
        path: the table.
        files: the file of each source that was written, by the source's name.
        labels: the classes of the sources.
        heard: the probability of the class in each.
    """
    rows = ((file.name, labels[name], f"{heard[name]:.6f}") for name, file in files.items())
    write_table(path, ("filename", "label", "probability"), rows)


def write_eval_results(
    outputs: Outputs, recordings: Sequence[Recording], predictor: Predictor, part: str | None
) -> None:
    """Writes what the tables of all recordings say as the challenge's `generate_waveform.py` does.

    Of part `i/n` of the recordings, the file's name says so.
    """
    probabilities = []
    for recording in recordings:
        rows = [row for _, row in read_rows(outputs.estimates(recording))][1:]
        estimates = [{"filename": file, "label": label, "probability": float(value)} for file, label, value in rows]
        probabilities.append({"soundscape": Path(recording.stem).name, "estimate": estimates})
    size = sum(parameter.numel() for parameter in predictor.model.parameters())
    with replacing(outputs.of_all("eval_results.json", part)) as temporary:
        temporary.write_text(json.dumps({"nparams": size, "probabilities": probabilities}, indent=4) + "\n")
