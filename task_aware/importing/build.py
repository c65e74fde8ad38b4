"""Makes a data set in DESED's layout of a collection, completely or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from task_aware.base.errors import DataError
from task_aware.base.files import cannot_write
from task_aware.base.tables import write_table
from task_aware.data.corpus import stated_levels
from task_aware.importing.collection import read_collection
from task_aware.importing.items import Item, Problems
from task_aware.importing.mixtures import average_level, write_mixtures
from task_aware.importing.options import Wanted
from task_aware.importing.report import Contents, write_levels
from task_aware.importing.splitting import classes, hold_out
from task_aware.importing.writing import HELD, Writer, Written, file_stems

_AT_ONCE = 256  # recordings handed to the threads at a time, which bounds memory


def import_collection(wanted: Wanted, out: Path, *, progress: bool = True) -> Contents:
    """Writes the data set `out`, which must not be there yet, and describes it.

    It is made in a folder beside `out` and then renamed, so that an interrupted import leaves nothing.

    Raises DataError if nothing can be imported, a class of `background` is unknown, or `out` cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} is there already; give another --out, or remove it")
    problems = Problems()
    items = read_collection(wanted.source, wanted.table, wanted.columns, problems)
    known = set().union(*map(classes, items))
    if unknown := [label for label in wanted.background if label not in known]:
        raise DataError(f"--background names {', '.join(unknown)}, but the classes are {', '.join(sorted(known))}")
    if not known - set(wanted.background):
        raise DataError("--background names all classes; leave at least one that is to be detected")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        root = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        try:
            root.chmod(0o755)
            contents = _build(root, items, wanted, problems, progress)
            os.replace(root, out)
        finally:
            shutil.rmtree(root, ignore_errors=True)
    except OSError as error:
        raise cannot_write(out, error.strerror or error) from error
    return contents


def _build(root: Path, items: Sequence[Item], wanted: Wanted, problems: Problems, progress: bool) -> Contents:
    held = hold_out(items)
    contents = Contents(frozenset(wanted.background))
    writer = Writer(root, contents.background, wanted.gap)
    cuts, weak, strong = [], [], []
    for item, written in _write_all(writer, items, held, problems, progress):
        contents.add(item, written, item.name in held)
        cuts += [(item.name, *row) for row in written.cuts]
        weak += written.weak
        strong += written.strong
    if not contents.has_events(held=False):
        raise DataError(
            f"none of the {len(items):,} recordings gives an isolated event to train on"
            f"{': ' + problems.found[0][2] if problems.found else ', as all have several labels or overlapping events'}"
        )
    metadata = root / "metadata"
    if weak:
        write_table(metadata / "train/weak.tsv", ("filename", "event_labels"), weak)
    write_levels(metadata / "levels.tsv", contents)
    if (root / HELD).is_dir():  # what `mix --data` makes of the held-out events is at the levels of the training
        write_levels(root / HELD / "metadata/levels.tsv", contents)
    if strong:
        write_table(metadata / "validation/validation.tsv", ("filename", "onset", "offset", "event_label"), strong)
        contents.validation = f"{len({row[0] for row in strong}):,} recordings with their own labels"
    elif contents.has_events(held=True):
        levels = stated_levels(root).values()
        count = write_mixtures(root, sum(levels) / len(levels) - average_level(), progress=progress)
        contents.validation = f"{count:,} mixtures of the held-out events"
    write_table(root / "cuts.tsv", ("filename", "onset", "offset", "reason", "heard_in", "from_second"), cuts)
    write_table(root / "errors.tsv", ("file", "line", "error"), problems.found)
    contents.problems = problems.found
    description = {
        "source": str(wanted.source.absolute()),
        "table": str(wanted.table.absolute()) if wanted.table else None,
        "background": wanted.background,
        "gap": wanted.gap,
        "held_out": sorted(held),
    }
    (root / "import.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    (root / "report.txt").write_text(contents.report() + "\n", encoding="utf-8", errors="backslashreplace")
    return contents


def _write_all(
    writer: Writer, items: Sequence[Item], held: set[str], problems: Problems, progress: bool
) -> Iterator[tuple[Item, Written]]:
    """Writes the recordings in threads; yields them in order, without those that cannot be used."""

    def write(job: tuple[Item, str]) -> Written | DataError:
        item, stem = job
        try:
            return writer.write(item, stem, item.name in held)
        except DataError as error:
            return error

    jobs = iter(zip(items, file_stems(items), strict=True))
    with (
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads,
        tqdm(total=len(items), desc="importing", unit="file", disable=not progress) as bar,
    ):
        while batch := list(islice(jobs, _AT_ONCE)):
            for (item, _), result in zip(batch, threads.map(write, batch), strict=True):
                bar.update()
                if isinstance(result, DataError):
                    problems.add(item.path, result)
                else:
                    yield item, result
