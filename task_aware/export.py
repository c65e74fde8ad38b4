"""`python -m task_aware.export`: exports a separator with its detector to ONNX and torch.export."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from task_aware.base import cli
from task_aware.base.errors import TaskAwareError
from task_aware.base.files import replacing

if TYPE_CHECKING:
    from task_aware.portable.formats import Run


def main(arguments: Sequence[str] | None = None) -> None:
    """Exports a model, front end included, for other runtimes: from mono waveforms to frame probabilities.

    Each file is opened again and compared with the model; a difference above 1e-4 is an error. See docs/export.md.
    """
    parser = cli.Parser(prog="python -m task_aware.export", description=main.__doc__)
    parser.add_argument("checkpoint", type=Path, help="separator.safetensors or detector.safetensors")
    parser.add_argument(
        "--out", type=Path, required=True, help="output folder for model.onnx, model.pt2 and model.json"
    )
    cli.add_detector(parser)
    parser.add_argument("--format", choices=("onnx", "torch", "both"), default="both", help="files to write")
    parser.add_argument("--seconds", type=float | None, help="fixed clip length in seconds; default: any length")
    parser.add_argument(
        "--benchmark", action="store_true", help="time each file on the CPU, with OMP_NUM_THREADS threads"
    )
    options = parser.parse_args(arguments)
    if options.seconds is not None and not options.seconds >= 1:
        raise ValueError(f"--seconds is {options.seconds}; give at least 1, or leave it out for any length")
    # not above: help and mistakes answer without torch
    from task_aware.models.opening import detector_of, open_model
    from task_aware.portable.check import (
        TOLERANCE,
        advice,
        describe,
        explaining,
        largest_difference,
        own_run,
        real_time_factor,
    )
    from task_aware.portable.formats import SECONDS, export_onnx, export_torch, open_onnx, open_torch

    model = open_model(options.checkpoint, options.detector)
    rate = detector_of(model).feature_config.sample_rate
    seconds = options.seconds or SECONDS
    own = own_run(model)
    runs: dict[str, Run | None] = {"eager, native operators": own}
    if options.format in ("torch", "both"):
        with explaining(model, "model.pt2"):
            export_torch(model, options.out / "model.pt2", seconds=options.seconds)
        runs["model.pt2"] = open_torch(options.out / "model.pt2")
    if options.format in ("onnx", "both"):
        with explaining(model, "model.onnx"):
            export_onnx(model, options.out / "model.onnx", seconds=options.seconds)
        runs["model.onnx"] = open_onnx(options.out / "model.onnx")
    with replacing(options.out / "model.json") as temporary:
        temporary.write_text(json.dumps(describe(model, options.seconds), indent=2) + "\n", encoding="utf-8")

    lengths = [round(rate * length) for length in ([seconds] if options.seconds else [seconds, 0.37 * seconds])]
    for name, run in runs.items():
        if run is None:
            print(f"{name}: written, but not checked, because onnxruntime is not installed")
            continue
        remarks = []
        if run is not own:
            with explaining(model, name):
                difference = largest_difference(run, own, lengths)
            if not difference <= TOLERANCE:
                raise TaskAwareError(
                    f"{options.out / name} differs from the model by {difference:.1e}, more than the allowed "
                    f"{TOLERANCE:.0e}; do not use it, and {advice(model)}"
                )
            remarks.append(f"differs from the model by at most {difference:.1e}")
        if options.benchmark:
            factor = real_time_factor(run, seconds, rate)
            remarks.append(f"real-time factor {factor:.4f} ({1 / factor:.0f} times real time)")
        if remarks:
            print(f"{name}: {', '.join(remarks)}")
    print(f"written to {options.out}")


if __name__ == "__main__":
    cli.run(main)
