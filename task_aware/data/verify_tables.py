"""The results of `verify` as text tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from task_aware.data.verify import Report


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Formats rows as columns under a header: the first column left-aligned, the others right-aligned."""
    cells = [list(header), *([f"{x:,}" if isinstance(x, int) else str(x) for x in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in cells]
    return "\n".join(lines)


def splits_table(report: Report) -> str:
    """Formats the clips and hours of each split."""
    rows = []
    for name, split in report.splits.items():
        empty = sum(clip.events == () or clip.labels == () for clip in split.clips)
        hours = report.seconds(clip.path for clip in split.clips) / 3600
        rows.append((name, len(split.clips), f"{hours:.2f}", len(split.missing), empty))
    return table(("split", "clips", "hours", "missing", "without labels"), rows)


def classes_table(report: Report) -> str:
    """Formats, by class, the recordings and seconds of the soundbank and the labels of each split."""
    counts = {
        name: Counter(
            label for clip in split.clips for label in clip.labels or [event.label for event in clip.events or ()]
        )
        for name, split in report.splits.items()
        if name != "unlabelled"
    }
    rows = []
    for label in (*report.labels, None):
        row: list[object] = [label or "background"]
        if report.soundbank is not None:
            bank = report.soundbank
            paths = bank.background if label is None else bank.foreground[label]
            row += [len(paths), f"{report.seconds(bank.folder / path for path in paths):.1f}"]
        rows.append([*row, *(count[label] if label is not None else "" for count in counts.values())])
    header = ["class", *(("soundbank", "seconds") if report.soundbank is not None else ())]
    header += [f"{name} {'clips' if name == 'weak' else 'events'}" for name in counts]
    return table(header, rows)


def forms(report: Report) -> str:
    """Counts the recordings of each sample rate and number of channels."""
    counts = Counter((p.sample_rate, p.channels) for p in report.probes.values() if not p.error)
    return ", ".join(
        f"{count:,} of {rate} Hz and {channels} channel{'s' * (channels > 1)}"
        for (rate, channels), count in counts.most_common()
    )
