"""The commands that are killed: how each is started again, and which of its files must come out the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import soundfile

from task_aware.base import checkpoint
from task_aware.training.folder import last_checkpoint

#: Parts of metrics.json that say how long something took, or how much memory.
MEASURED = {"steps_per_second", "data_wait_share", "peak_memory_mib", "real_time_factor", "seconds"}


@dataclass(frozen=True)
class Command:
    """A command with an output folder.

    Attributes:
        arguments: what comes after `python -m task_aware.`, without `--out`.
        again: further arguments to go on with, given the output folder that a killed one left.
        results: patterns of the files whose content must be that of an undisturbed run.
    """

    arguments: tuple[str, ...]
    again: Callable[[Path], list[str]]
    results: tuple[str, ...]


def _nothing(_: Path) -> list[str]:
    return []


def _resume(out: Path) -> list[str]:
    return ["--resume"] if last_checkpoint(out).is_file() else []


def commands(corpus: Path, recordings: Path) -> dict[str, Command]:
    """The commands, each of a few seconds, on a small corpus and a folder of recordings."""
    detector = "--detector=task_aware/assets/detector_builtin.safetensors"
    trained = ("metrics.json", "*.tsv", "options.json")
    steps = ("--batch.strong=1", "--optimiser.steps_per_epoch=2", "--batch.weak=1", "--batch.unlabelled=1")
    return {
        "train": Command(
            ("train", f"--data={corpus}", detector, *steps, "--max-steps=8", "--rirs", str(corpus / "rirs")),
            _resume,
            ("separator.safetensors", "separation.png", *trained),
        ),
        "train_sed": Command(
            ("train_sed", f"--data={corpus}", "--training.steps_per_epoch=2", "--max-steps=8"),
            _resume,
            ("detector.safetensors", *trained),
        ),
        "train_sep": Command(
            ("train_sep", f"--data={corpus}", detector, "--denoiser.steps_per_epoch=2", "--max-steps=8"),
            _resume,
            ("denoiser.safetensors", *trained),
        ),
        "mix": Command(("mix", f"--data={corpus}", "--number=24"), _nothing, ("**/*.wav", "**/*.tsv", "**/*.json")),
        "infer": Command(
            ("infer", "--demo", str(recordings), "--audio", "--scores", "--plot", "--skip-existing"),
            _nothing,
            ("**/*.tsv", "**/*.flac", "**/*.png"),
        ),
        "ablation": Command(
            ("ablation", f"--data={corpus}", "--rows", "classes", "--seeds=1", "--max-steps=2", "--resamples=20",
             detector),
            _nothing,
            ("*/seed0/*.safetensors", "*/seed0/metrics.json", "*/seed0/*.tsv", "ablation.json"),
        ),
        "import_clips": Command(
            ("import_clips", str(corpus / "audio/train/soundbank/foreground")),
            _nothing,
            ("**/*.tsv", "**/*.flac", "report.txt"),
        ),
        "overlay": Command(("overlay", f"--data={corpus}"), _nothing, ("**/*.tsv", "**/*.flac")),
    }  # fmt: skip


def digests(command: Command, out: Path) -> dict[str, str]:
    """A digest of each result in `out`, by its path; times and memory are left out."""
    found = {path for pattern in command.results for path in out.glob(pattern) if path.is_file()}
    return {str(path.relative_to(out)): hashlib.sha256(_content(path, out)).hexdigest() for path in sorted(found)}


def _content(path: Path, out: Path) -> bytes:
    if path.suffix == ".safetensors":  # the order of its header is arbitrary
        tensors, content = checkpoint.read(path, path.stem)
        weights = {name: hashlib.sha256(tensor.numpy().tobytes()).hexdigest() for name, tensor in tensors.items()}
        return json.dumps([weights, content], sort_keys=True).encode()
    if path.suffix != ".json":
        return path.read_bytes()
    text = json.dumps(_lasting(json.loads(path.read_text())), sort_keys=True)
    return text.replace(str(out), "OUT").encode()


def _lasting(tree: object) -> object:
    if isinstance(tree, dict):
        return {name: _lasting(value) for name, value in tree.items() if name not in MEASURED}
    return [_lasting(item) for item in tree] if isinstance(tree, list) else tree


def half_written(out: Path) -> list[str]:
    """Files under a final name that cannot be read to their end. Hidden names are those of temporary files."""
    found = []
    for path in sorted(out.rglob("*")):
        below = path.relative_to(out)
        if not path.is_file() or any(part.startswith(".") for part in below.parts):
            continue
        try:
            _read(path)
        except Exception as error:
            found.append(f"{below}: {type(error).__name__}: {error}")
    return found


def _read(path: Path) -> None:
    if path.suffix == ".safetensors":
        checkpoint.read(path, "training" if path.name == "last.safetensors" else path.stem)
    elif path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".tsv":
        assert path.read_bytes().endswith(b"\n"), "the last line has no end"
    elif path.suffix in (".wav", ".flac"):
        with soundfile.SoundFile(path) as file:
            assert len(file.read()) == file.frames > 0, "shorter than its header says"
    elif path.suffix == ".png":
        assert path.read_bytes().endswith(b"IEND\xaeB`\x82"), "the picture has no end"
