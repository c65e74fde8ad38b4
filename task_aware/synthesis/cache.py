"""The built-in corpus on disk: its location, and how it is made completely or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import soundfile

from task_aware.base.errors import DataError
from task_aware.base.files import read_json
from task_aware.data.corpus import Corpus
from task_aware.data.recordings import cache_folder
from task_aware.synthesis.build import build, identity
from task_aware.synthesis.contents import VERSION
from task_aware.synthesis.sizes import SIZES

_ABANDONED_SECONDS = 3600.0


def builtin_corpus(cache: Path | None = None, *, seed: int = 0, size: str = "full", progress: bool = True) -> Path:
    """Opens the built-in corpus, ten synthetic classes in DESED's layout, which is made on first use and cached.

    Args:
        cache: the folder to keep it in; default: `cache_folder()`.
        seed: seed of the corpus, 0 or more.
        size: "full" (2,452 files, 200 MB, made in a minute on 2 cores), "large" (the same training material and 600
            validation clips, for narrower confidence intervals; 280 MB), "stems" (1,000 events of each class for long
            trainings; 780 MB) or "tiny" (65 files, seconds; for tests).
        progress: show a progress bar while it is made.

    Returns:
        The root folder, which holds `audio/`, `metadata/` and `rirs/`.

    Raises:
        ValueError: the size is unknown or the seed is negative.
        DataError: the folder cannot be written, or the corpus in it is damaged.
    """
    folder = cache_folder() if cache is None else Path(cache)
    root = folder / f"corpus-v{VERSION}-seed{seed}-{size}"
    advice = "set TASK_AWARE_CACHE to a writable folder with 1 GB of free space"
    return make_corpus(root, seed=seed, size=size, progress=progress, advice=advice)


def make_corpus(
    root: Path,
    *,
    seed: int = 0,
    size: str = "full",
    progress: bool = True,
    advice: str = "choose another folder, or free some space",
) -> Path:
    """Makes the built-in corpus in the folder `root`, unless it is there already.

    It is built in a folder next to `root` and then renamed, so that an interrupted build leaves nothing at `root`. If
    two processes build it at the same time, the second to finish uses the first one's. Arguments and errors are those
    of `builtin_corpus`; `advice` ends the error message if the folder cannot be written.
    """
    if size not in SIZES:
        raise ValueError(f"size must be one of {', '.join(SIZES)}, got {size!r}.")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}.")
    temporary = None
    try:
        if _is_whole(root, seed, size):
            return root
        root.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(root)
        temporary = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
        temporary.chmod(0o755)
        build(temporary, seed=seed, size=size, progress=progress)
        try:
            os.replace(temporary, root)
        except OSError:
            if not _is_whole(root, seed, size):
                raise
        return root
    except (OSError, soundfile.SoundFileError) as error:
        reason = str(error).rstrip(".")
        raise DataError(f"The built-in corpus cannot be written to {root} ({reason}); {advice}.") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _is_whole(root: Path, seed: int, size: str) -> bool:
    """Whether the complete corpus is at `root`. Raises DataError if there is something else or only a part of it."""
    if not root.is_dir() or not any(root.iterdir()):
        return False
    try:
        manifest = read_json(root / "manifest.json")
    except DataError:
        manifest = None
    wanted = identity(seed, size)
    if not isinstance(manifest, dict) or any(manifest.get(key) != value for key, value in wanted.items()):
        made = ", ".join(f"{key} {value}" for key, value in wanted.items())
        raise DataError(
            f"{root} holds something other than the built-in corpus ({made}); remove it or choose another folder."
        )
    found = sum(1 for _ in root.rglob("*.flac"))
    if found != manifest.get("audio_files"):
        raise DataError(
            f"{root} holds {found} of the {manifest.get('audio_files')} audio files of the built-in corpus; "
            "remove the folder to have it made again."
        )
    return True


def _remove_abandoned(root: Path) -> None:
    """Deletes what builds that were interrupted more than an hour ago left next to `root`."""
    for left in root.parent.glob(f".{root.name}-*"):
        if left.is_dir() and time.time() - left.stat().st_mtime > _ABANDONED_SECONDS:
            shutil.rmtree(left, ignore_errors=True)


def open_corpus(
    data: Path | None,
    rirs: Path | None,
    *,
    sample_rate: int,
    labels: Sequence[str] | None = None,
    channel: int | None = None,
    tiny: bool = False,
    others_are_noise: bool = False,
) -> Corpus:
    """Opens the corpus in `data`, by default the built-in one (the tiny size if `tiny`), with `labels` or its own.

    The other arguments are those of `Corpus`.
    """
    root = data or builtin_corpus(size="tiny" if tiny else "full")
    return Corpus(
        root, rirs, labels=labels, sample_rate=sample_rate, channel=channel, others_are_noise=others_are_noise
    )
