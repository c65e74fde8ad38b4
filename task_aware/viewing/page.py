"""The page: one HTML file with the player and, as long as that is little, with the sound and the pictures."""

from __future__ import annotations

import base64
import json
import mimetypes
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from task_aware.base.errors import DataError
from task_aware.base.files import replacing
from task_aware.data.labels import Event
from task_aware.viewing.recordings import ADVICE, listed, read_recording, read_summary

#: The page, and the folder of each recording's data, within a folder of results.
PAGE, DATA = "index.html", "view"

#: Most bytes of sound that are put into the page itself.
INLINE_BYTES = 8_000_000

_ASSETS = Path(__file__).parents[1] / "assets/view"
_LIBRARY = ("wavesurfer", "regions", "timeline", "minimap", "hover")


def write_page(root: Path, references: Mapping[str, Sequence[Event]] | None = None) -> Path:
    """Writes the page of a folder of results, and returns its path.

    Args:
        root: a folder that `write_recording` wrote to.
        references: the true events of recordings, by their names, which become a row of their own.

    Raises DataError if nothing in the folder can be shown.
    """
    paths = sorted((root / DATA).rglob("*.js"))
    if not paths:
        raise DataError(
            f"{root} holds nothing that a page could show; run infer with --html and this --out (and --skip-existing, "
            "to keep what is there)"
        )
    entries = [{**read_summary(path), "data": _url(root, path)} for path in paths]
    entries.sort(key=lambda entry: entry["name"])
    if sum(entry["bytes"] for entry in entries) <= INLINE_BYTES:
        for entry in entries:
            entry["inline"] = _inlined(root, root / unquote(entry["data"]))
    known = {entry["name"] for entry in entries}
    content = {
        "title": root.resolve().name,
        "recordings": entries,
        "references": {name: listed(events) for name, events in (references or {}).items() if name in known},
    }
    with replacing(root / PAGE) as temporary:
        temporary.write_text(render(content), encoding="utf-8")
    return root / PAGE


def render(content: Mapping[str, Any]) -> str:
    """The HTML of the page with all of its data, which are text to the browser whatever names are in them."""
    parts = {
        "STYLE": _asset("page.css"),
        "LICENSE": _asset("wavesurfer/LICENSE"),
        "LIBRARY": "\n".join(_asset(f"wavesurfer/{name}.min.js") for name in _LIBRARY),
        # no text in a script can end it, or begin a comment, without this sign
        "DATA": json.dumps(content).replace("<", "\\u003c"),
        "PLAYER": _asset("page.js"),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _asset("page.html"))


def _inlined(root: Path, path: Path) -> dict[str, Any]:
    """The data of a recording, with its sound and pictures in them."""
    recording = read_recording(path)
    try:
        for track in recording["tracks"]:
            track["audio"] = _data_url(root / unquote(track["audio"]))
            track["tiles"] = [_data_url(root / unquote(tile)) for tile in track["tiles"]]
    except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise DataError(f"{path} names sounds or pictures that cannot be read ({error}); {ADVICE}") from error
    return recording


def _data_url(path: Path) -> str:
    kind = mimetypes.guess_type(path.name)[0] if path.suffix == ".png" else "audio/flac"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _url(root: Path, path: Path) -> str:
    return quote(path.relative_to(root).as_posix())


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")
