"""Mutated label files of all formats that `import_clips` reads, beside whole recordings."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from random import Random

import jams
import numpy as np
import pympi
import soundfile

from task_aware.annotations.libraries import library
from task_aware.base.errors import DataError
from task_aware.importing.build import import_collection
from task_aware.importing.collection import read_collection
from task_aware.importing.items import Problems
from task_aware.importing.options import Columns, Wanted

from .mutations import WORDS, mutate, mutate_json, mutate_table

TABLES = {
    "audio/a.txt": "0.5\t1.0\tdog\n\\\t100\t2000\n1.5\t2.0\tcat\n",
    "audio/b.txt": "audio/a.wav\thome\t0.5\t1.0\tdog\nb.wav\thome\t1.5\t2.0\tcat\n",
    "audio/a.Table.1.selections.txt": "Selection\tView\tBegin Time (s)\tEnd Time (s)\tBegin File\tFile Offset (s)\t"
    "Species\n"
    "1\tWaveform 1\t0.5\t1.0\ta.wav\t0.5\tdog\n1\tSpectrogram 1\t0.5\t1.0\ta.wav\t0.5\tdog\n"
    "2\tSpectrogram 1\t4.0\t4.5\tb.wav\t1.5\tcat\n",
    "labels.csv": "filename\tcategory\tfold\tsrc_file\na.wav\tdog\t1\tx\nb.wav\tcat\t2\ty\nc.wav\tdog\t2\tx\n",
    "strong.tsv": "filename\tonset\toffset\tevent_label\na.wav\t0.5\t1.0\tdog\nb.wav\t\t\t\nc.wav\t1.5\t2\tcat\n",
    "meta/segments.tsv": "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\na\t0.5\t1.0\t/m/1\nb\t1\t2\t/m/2\n",
}

GRID = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 2.5
tiers? <exists>
size = 1
item []:
    item [1]:
        class = "IntervalTier"
        name = "sounds"
        xmin = 0
        xmax = 2.5
        intervals: size = 2
        intervals [1]:
            xmin = 0
            xmax = 0.5
            text = ""
        intervals [2]:
            xmin = 0.5
            xmax = 2.5
            text = "dog"
"""

STUDIO = [
    {
        "id": number,
        "data": {"audio": f"/data/upload/1/{name}.wav"},
        "annotations": [
            {
                "was_cancelled": False,
                "result": [{"type": "labels", "value": {"start": 0.5, "end": 1.0, "labels": ["dog"]}}],
            }
        ],
    }
    for number, name in enumerate("ab", 1)
]


def is_sentence(error: BaseException) -> bool:
    return isinstance(error, DataError) and "\n" not in str(error)


def whole_files(folder: Path) -> dict[str, bytes]:
    """A label file of each format that is no table."""
    elan = pympi.Elan.Eaf()
    elan.add_tier("sounds")
    elan.add_annotation("sounds", 500, 1000, "dog")
    elan.add_linked_file("a.wav", mimetype="audio/x-wav")
    elan.to_file(str(folder / "a.eaf"))
    made = jams.JAMS()
    made.file_metadata.duration = 2.5
    annotation = jams.Annotation(namespace="segment_open", time=0, duration=2.5)
    annotation.append(time=0.5, duration=0.5, value="dog")
    made.annotations.append(annotation)
    made.save(str(folder / "a.jams"))
    library("crowsetta")
    return {
        "audio/a.eaf": (folder / "a.eaf").read_bytes(),
        "audio/a.jams": (folder / "a.jams").read_bytes(),
        "audio/a.TextGrid": GRID.encode(),
        "export.json": json.dumps(STUDIO).encode(),
    }


def prepare(folder: Path) -> Callable[[Random, Path], None]:
    audio = folder / "whole"
    audio.mkdir()
    for seed, name in enumerate("abc"):
        generator = np.random.default_rng(seed)
        samples = 1e-4 * generator.standard_normal(40000)
        for onset in (8000, 24000):
            samples[onset : onset + 8000] += 0.1 * generator.standard_normal(8000)
        soundfile.write(audio / f"{name}.wav", samples, 16000)
    files = whole_files(folder)

    def case(random: Random, own: Path) -> None:
        source = own / "source"
        (source / "meta").mkdir(parents=True)
        (source / "audio").mkdir()
        for path in audio.iterdir():
            os.symlink(path, source / "audio" / path.name)
        name = random.choice([*files, *files, *TABLES])
        (source / name).write_bytes(mutated(random, name, files))
        if name.startswith("meta") and random.random() < 0.5:
            names = mutate_table(random, "/m/1\tDog\n/m/2\tCat\n")
            (source / "meta/mid_to_display_name.tsv").write_bytes(names)
        columns = Columns(
            label=random.choice([None] * 9 + ["species", "Species", *WORDS]),
            group=random.choice([None] * 9 + ["fold"]),
            first_label=random.random() < 0.1,
        )
        table = source / name if name == "export.json" or random.random() < 0.05 else None
        if random.random() < 0.25:
            whole(source, table, columns, own / "out")
        else:
            problems = Problems()
            try:
                items = read_collection(source, table, columns, problems)
            finally:
                assert all("\n" not in error for _, _, error in problems.found)
            for item in items:
                assert item.path.is_file()
                for event in item.events or ():
                    assert 0 <= event.onset < event.offset < math.inf and event.label

    return case


def mutated(random: Random, name: str, files: dict[str, bytes]) -> bytes:
    if name in TABLES:
        return mutate_table(random, TABLES[name])
    if name.endswith((".json", ".jams")):
        return mutate_json(random, files[name].decode())
    text = files[name].decode()
    for _ in range(random.choice([1, 1, 2, 4])):
        places = list(re.finditer(r'(?<==")[^"]*|(?<== )[^\n]*|(?<=>)[^<\n]*', text))
        if random.random() < 0.7 and places:
            place = random.choice(places)
            text = text[: place.start()] + random.choice(WORDS) + text[place.end() :]
        else:
            lines = text.splitlines(keepends=True)
            at = random.randrange(len(lines) or 1)
            lines[at : at + random.choice([0, 1, 1, 3])] = random.choice([[], lines[at : at + 2]])
            text = "".join(lines)
    data = text.encode(random.choice(["utf-8"] * 9 + ["utf-16"]), errors="replace")
    return mutate(random, data, random.choice(list(files.values()))) if random.random() < 0.2 else data


def whole(source: Path, table: Path | None, columns: Columns, out: Path) -> None:
    """Nothing is left of an import that fails, and all that belongs to it of one that does not."""
    try:
        import_collection(Wanted(source, table, columns), out, progress=False)
    except DataError:
        assert sorted(path.name for path in out.parent.iterdir()) == ["source"]
        raise
    assert all((out / name).is_file() for name in ("report.txt", "errors.tsv", "import.json"))
