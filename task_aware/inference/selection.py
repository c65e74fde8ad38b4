"""Which of the recordings that a command line names are analysed: all but the sources that earlier runs separated."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from task_aware.base.errors import DataError
from task_aware.inference.outputs import MIXTURE, Outputs, source_file
from task_aware.inference.recordings import Recording, find_recordings

_log = logging.getLogger(__name__)


def select_recordings(inputs: Sequence[str], outputs: Outputs) -> list[Recording]:
    """Finds the recordings that the inputs name, without results of earlier runs.

    Raises DataError if one of the inputs names no recording, or if all recordings are such results.
    """
    for each in inputs if len(inputs) > 1 else ():
        find_recordings([each])
    found = find_recordings(inputs)
    stems = {recording.stem for recording in found}
    kept = [recording for recording in found if not _is_source(recording, outputs, stems)]
    if not kept:
        raise DataError(
            f"all recordings given ({found[0].path}, ...) are sources that an earlier run separated, which are not "
            "analysed; copy them to another folder to do so"
        )
    if len(kept) < len(found):
        n_left = len(found) - len(kept)
        files = "1 file, a source" if n_left == 1 else f"{n_left} files, sources"
        _log.info("leaving out %s that earlier runs separated", files)
    return kept


def _is_source(recording: Recording, outputs: Outputs, stems: Collection[str]) -> bool:
    """Whether a file is `audio/STEM.SOURCE.flac` in the output folder of a run, beside `events/STEM.tsv`.

    Where the table of STEM is missing, which is written last, a run was killed before it; such a file is known by its
    source if the output folder is the same. A recording that has a table of its own is none, whatever its name.
    """
    path = recording.path.parent.resolve() / recording.path.name
    if path.suffix != ".flac" or outputs.events(recording).is_file():
        return False
    parts = path.stem.split(".")
    sources = {MIXTURE, *(source_file(name) for name in outputs.wanted.sources)}
    for folder in (parent for parent in path.parents if parent.name == "audio"):
        for count in range(1, len(parts)):
            stem = path.with_name(".".join(parts[:count])).relative_to(folder).as_posix()
            if (folder.parent / "events" / f"{stem}.tsv").is_file():
                return True
            of_killed = stem in stems and ".".join(parts[count:]) in sources
            if of_killed and folder.parent == outputs.root.resolve():
                return True
    return False
