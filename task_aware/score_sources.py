"""`python -m task_aware.score_sources`: scores separated and labelled sources as DCASE 2026 task 4 does (CAPI-SDRi)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from task_aware.base import cli


def main(arguments: Sequence[str] | None = None) -> None:
    """Scores estimates of labelled sources against the true ones, in the layout of DCASE 2026 task 4.

    Prints the CAPI-SDRi in dB and the label accuracies, and writes them, also per mixture. The estimates are those of
    `infer --audio --audio-layout s5`, or of any other system. See docs/dcase2026.md.
    """
    parser = cli.Parser(prog="python -m task_aware.score_sources", description=main.__doc__)
    text = "folder of the estimates, NAME_K_Label.wav"
    parser.add_argument("estimates", type=Path, help=text)
    text = "data set, with the mixtures in soundscape/ and the true sources in oracle_target/"
    parser.add_argument("--data", type=Path, required=True, help=text)
    text = "output folder; default: that of the estimates, with -scores appended"
    parser.add_argument("--out", type=Path | None, help=text)
    text = "the classes that labels may name; default: any. s5: the 18 of the challenge"
    parser.add_argument("--classes", nargs="+", type=str | None, help=text)
    options = parser.parse_args(arguments)
    # not above: help and mistakes answer without torch
    from tqdm import tqdm

    from task_aware.base.files import replacing
    from task_aware.base.tables import write_table
    from task_aware.data.scenes import S5_CLASSES, read_scenes
    from task_aware.scoring.scenes import score_scene
    from task_aware.scoring.source_scores import SourceScores

    classes = S5_CLASSES if options.classes == ["s5"] else options.classes
    out = options.out or options.estimates.with_name(f"{options.estimates.name}-scores")
    references = read_scenes(options.data, labels=classes)
    estimates = read_scenes(options.data, options.estimates, labels=classes)
    scores = SourceScores()
    rows = []
    for reference, estimate in zip(tqdm(references, desc="mixtures", disable=None), estimates, strict=True):
        value = score_scene(scores, estimate, reference)
        labels = (",".join(source.label for source in scene.sources) for scene in (reference, estimate))
        rows.append((reference.name, *labels, "" if value is None else f"{value:.4f}"))
    mean, accuracy = scores.mean(), scores.labels()
    scored = sum(value is not None for value in scores.values)
    summary = {
        "capi_sdri_db": mean,
        "mixtures": len(rows),
        "mixtures_that_score": scored,
        "label_accuracy_of_mixtures": accuracy.mixtures,
        "label_accuracy_of_sources": accuracy.sources,
        "true_positives": accuracy.true_positives,
        "false_positives": accuracy.false_positives,
        "false_negatives": accuracy.false_negatives,
    }
    out.mkdir(parents=True, exist_ok=True)
    write_table(out / "sources.tsv", ("mixture", "true", "estimated", "capi_sdri_db"), rows)
    with replacing(out / "metrics.json") as path:
        path.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    decibels = "-" if mean is None else f"{mean:.2f} dB"
    print(f"CAPI-SDRi: {decibels} over {scored:,} mixtures; {len(rows) - scored:,} more are silence and were left so")
    of_sources = "-" if accuracy.sources is None else f"{100 * accuracy.sources:.1f} %"
    print(
        f"labels: {100 * accuracy.mixtures:.1f} % of the mixtures have the right ones; accuracy of the sources "
        f"{of_sources} ({accuracy.true_positives:,} right, {accuracy.false_positives:,} false, "
        f"{accuracy.false_negatives:,} missed)"
    )
    print(f"written to {out}: metrics.json, sources.tsv")


if __name__ == "__main__":
    cli.run(main)
