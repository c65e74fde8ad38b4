"""`python -m task_aware.export`: a separator with its detector as one ONNX file or torch.export program."""

from __future__ import annotations

import importlib
import json
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from jsonargparse import ArgumentParser
from torch import Tensor, nn

from task_aware.base import cli
from task_aware.base.errors import TaskAwareError
from task_aware.base.files import replacing
from task_aware.inference.predictor import Predictor
from task_aware.models.crnn import CRNN
from task_aware.models.opening import detector_of, open_model
from task_aware.models.system import listen
from task_aware.portable.model import Portable, with_onnx_grus

#: Largest difference to the model's own probabilities that an exported file may have.
TOLERANCE = 1e-4

#: Clips of this length are exported, checked and timed where none is given, seconds.
SECONDS = 10.0

Run = Callable[[Tensor], Tensor]


def export_torch(model: nn.Module, path: Path, *, seconds: float | None = None) -> None:
    """Writes a program for `torch.export.load`: `waveform [B, N]` -> probabilities `[B, T', C]`.

    Args:
        model: a `Separator`, or a detector of the protocol.
        path: the file, `.pt2`.
        seconds: for clips of this length alone; otherwise of any.
    """
    # Not public yet; without them a recurrent layer is traced as a loop of the example's length.
    from torch.export._patches import register_gru_while_loop_decomposition, register_lstm_while_loop_decomposition

    example, dynamic = _example(model, seconds)
    with (
        torch.no_grad(),
        warnings.catch_warnings(),
        register_gru_while_loop_decomposition(),
        register_lstm_while_loop_decomposition(),
    ):
        warnings.simplefilter("ignore")
        shapes = {"waveform": {axis: torch.export.Dim.DYNAMIC for axis in dynamic}}
        program = torch.export.export(Portable(model).eval(), (example,), dynamic_shapes=shapes, strict=False)
    with replacing(path) as temporary, temporary.open("wb") as file:
        torch.export.save(program, file)


def export_onnx(model: nn.Module, path: Path, *, seconds: float | None = None) -> None:
    """Writes an ONNX file: input `waveform [batch, samples]`, output `frame [batch, frames, classes]`.

    The arguments are those of `export_torch`. Raises TaskAwareError where the exporter's packages are missing.
    """
    try:
        importlib.import_module("onnxscript")
    except ImportError as error:
        raise TaskAwareError(
            f"writing ONNX needs {error.name}, which is not installed; run `pip install 'task_aware[export]'`"
        ) from error
    example, dynamic = _example(model, seconds)
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with torch.no_grad(), warnings.catch_warnings(), replacing(path) as temporary:
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            with_onnx_grus(Portable(model)).eval(),
            (example,),
            dynamo=True,
            dynamic_shapes={"waveform": dynamic},
            input_names=["waveform"],
            output_names=["frame"],
            verbose=False,
        )
        assert program is not None
        program.save(temporary, external_data=False)


def _example(model: nn.Module, seconds: float | None) -> tuple[Tensor, dict[int, str]]:
    """A batch to trace with, and the names of the axes that may have any size."""
    rate = detector_of(model).feature_config.sample_rate
    dynamic = {0: "batch"} | ({} if seconds else {1: "samples"})
    return noise(2, round((seconds or SECONDS) * rate)), dynamic


def noise(n_clips: int, n_samples: int) -> Tensor:
    """Noise `[B, N]` that begins and ends, over a quieter one: clips in which detectors hear something."""
    generator = torch.Generator().manual_seed(n_samples)
    loud = (torch.arange(n_samples) // max(1, n_samples // 7)) % 2
    return torch.randn(n_clips, n_samples, generator=generator) * (0.003 + 0.2 * loud)


def open_torch(path: Path) -> Run:
    """The program in a file, run by torch."""
    return torch.export.load(path).module()


def open_onnx(path: Path) -> Run | None:
    """An ONNX file, run by onnxruntime on as many threads as torch has; None where that is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda waveform: torch.from_numpy(session.run(None, {"waveform": waveform.numpy()})[0])


def own_run(model: nn.Module) -> Run:
    """The model as `python -m task_aware.infer` runs it."""
    predictor = Predictor(model, device="cpu")
    front_end = predictor.detector.feature_config

    def run(waveform: Tensor) -> Tensor:
        mel = front_end.mel(waveform, backend="auto" if predictor.separator is None else predictor.separator.backend)
        return listen(predictor.model, mel)

    return run


@torch.no_grad()
def largest_difference(run: Run, own: Run, lengths: Sequence[int]) -> float:
    """Largest difference of probabilities, on batches of one and three clips of noise of each length."""
    clips = [noise(n_clips, n_samples) for n_samples in lengths for n_clips in (1, 3)]
    return max(float((run(clip) - own(clip)).abs().max()) for clip in clips)


@torch.no_grad()
def real_time_factor(run: Run, seconds: float, sample_rate: int, repeats: int = 20) -> float:
    """Seconds of computing per second of one clip: the fastest of the repetitions, as other programs only slow them."""
    clip = noise(1, round(seconds * sample_rate))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run(clip)
        times.append(time.perf_counter() - start)
    return min(times) / seconds


@contextmanager
def explaining(model: nn.Module, name: str) -> Iterator[None]:
    """What an exporter or runtime stumbles on becomes one sentence, which says what to do."""
    try:
        yield
    except (TaskAwareError, OSError):
        raise
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = f"{type(cause).__name__}: {str(cause).partition(chr(10))[0]}"
        raise TaskAwareError(f"{name} of this model cannot be made ({reason}); {advice(model)}") from error


def advice(model: nn.Module) -> str:
    """What to change where a file cannot be made, or says something else than its model."""
    detector = detector_of(model)
    if isinstance(detector, CRNN):
        return "try another version of torch"
    return (
        f"in the forward of {type(detector).__name__} compute with tensors alone, without numbers or branches made of "
        "their values, and for any batch (x.shape[0], not len(x)): see docs/export.md"
    )


def describe(model: nn.Module, seconds: float | None) -> dict[str, object]:
    """What a caller must know to use an exported file."""
    detector = detector_of(model)
    predictor = Predictor(model, device="cpu")
    return {
        "labels": list(detector.labels),
        "sample_rate": detector.feature_config.sample_rate,
        "seconds": seconds,
        "frame_seconds": detector.frame_seconds,
        "threshold": predictor.threshold,
        "median_frames": predictor.median_frames,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes a checkpoint for other runtimes: mono waveforms in, frame probabilities out, front end included.

    What it writes is opened again and compared with the model; a difference above 1e-4 is an error.
    """
    parser = ArgumentParser(prog="python -m task_aware.export", description=main.__doc__)
    parser.add_argument("checkpoint", type=Path, help="separator.safetensors or detector.safetensors")
    parser.add_argument("--out", type=Path, required=True, help="folder of model.onnx, model.pt2 and model.json")
    cli.add_detector(parser)
    parser.add_argument("--format", choices=("onnx", "torch", "both"), default="both")
    parser.add_argument("--seconds", type=float | None, help="for clips of this length alone; default: of any length")
    parser.add_argument("--benchmark", action="store_true", help="time each on the CPU, on OMP_NUM_THREADS threads")
    options = parser.parse_args(arguments)
    if options.seconds is not None and not options.seconds >= 1:
        raise ValueError(f"--seconds is {options.seconds}; give 1 or more, or leave it out for any length")
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
            print(f"{name}: written; not checked, since onnxruntime is not installed")
            continue
        remarks = []
        if run is not own:
            with explaining(model, name):
                difference = largest_difference(run, own, lengths)
            if not difference <= TOLERANCE:
                raise TaskAwareError(
                    f"{options.out / name} differs from the model by {difference:.1e}, and {TOLERANCE:.0e} is allowed; "
                    f"do not use it, and {advice(model)}"
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
