"""Checks a folder in the layout of DCASE's task on sound scenes before it is scored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from task_aware.base.errors import RecordingError
from task_aware.data.audio import Header, audio_header
from task_aware.data.scenes import Scene, read_scenes
from task_aware.data.verify_tables import table


def verify_scenes(root: Path, labels: Sequence[str] | None = None) -> tuple[str, list[str]]:
    """Reads the headers of all mixtures and true sources.

    Args:
        root: the data set.
        labels: the classes that there should be; None takes what the names of the sources have.

    Returns:
        What there is, as a text, and sentences on what would prevent scoring.

    Raises:
        DataError: as `read_scenes` does.
    """
    scenes = read_scenes(root, labels=labels)
    problems: list[str] = []
    seconds = 0.0
    for scene in tqdm(scenes, desc="mixtures", disable=None):
        if (mixture := _header(scene.path, problems)) is not None:
            seconds += mixture.seconds
            for source in scene.sources:
                header = _header(source.path, problems)
                if header is not None and header[:2] != mixture[:2]:
                    problems.append(
                        f"{source.path} has {header.seconds:.4f} s at {header.sample_rate:,} Hz, but its mixture "
                        f"{mixture.seconds:.4f} s at {mixture.sample_rate:,} Hz"
                    )
    return f"{_counts(scenes, seconds)}\n\n{_classes(scenes)}", problems


def _header(path: Path, problems: list[str]) -> Header | None:
    try:
        return audio_header(path)
    except RecordingError as error:
        problems.append(str(error))
        return None


def _counts(scenes: Sequence[Scene], seconds: float) -> str:
    numbers = Counter(len(scene.sources) for scene in scenes)
    rows = [(f"{number} sources", count) for number, count in sorted(numbers.items())]
    return f"{len(scenes):,} mixtures, {seconds / 3600:.2f} hours\n" + table(("mixtures of", ""), rows)


def _classes(scenes: Sequence[Scene]) -> str:
    sources: Counter[str] = Counter()
    several: Counter[str] = Counter()
    for scene in scenes:
        counts = Counter(source.label for source in scene.sources)
        sources += counts
        several.update(label for label, count in counts.items() if count > 1)
    rows = [(label, count, several[label]) for label, count in sorted(sources.items())]
    return table(("class", "sources", "mixtures with several"), rows)
