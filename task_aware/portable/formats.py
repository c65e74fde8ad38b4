"""Writes and runs the exported formats, torch.export and ONNX."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from task_aware.base.errors import TaskAwareError
from task_aware.base.files import replacing
from task_aware.models.opening import detector_of
from task_aware.portable.model import Portable, with_onnx_grus

#: Length in seconds of the clips for exporting, checking and timing, unless one is given.
SECONDS = 10.0


Run = Callable[[Tensor], Tensor]


def export_torch(model: nn.Module, path: Path, *, seconds: float | None = None) -> None:
    """Writes a program for `torch.export.load`: `waveform [B, N]` -> probabilities `[B, T', C]`.

    Args:
        model: a `Separator`, or a detector of the protocol.
        path: the file, `.pt2`.
        seconds: fixed length of the clips; None for any length.
    """
    # Not public yet. Without them, a recurrent layer is unrolled for the length of the example.
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

    The arguments are those of `export_torch`. Raises TaskAwareError if the exporter's packages are not installed.
    """
    try:
        importlib.import_module("onnxscript")
    except ImportError as error:
        raise TaskAwareError(
            f"{error.name} for ONNX is not installed; run `pip install '.[export]'` in the checkout"
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
    """A batch to trace with, and the names of the axes of variable size."""
    rate = detector_of(model).feature_config.sample_rate
    dynamic = {0: "batch"} | ({} if seconds else {1: "samples"})
    return noise(2, round((seconds or SECONDS) * rate)), dynamic


def noise(n_clips: int, n_samples: int) -> Tensor:
    """Bursts of noise over quieter noise, `[B, N]`, in which detectors find events."""
    generator = torch.Generator().manual_seed(n_samples)
    loud = (torch.arange(n_samples) // max(1, n_samples // 7)) % 2
    return torch.randn(n_clips, n_samples, generator=generator) * (0.003 + 0.2 * loud)


def open_torch(path: Path) -> Run:
    """Opens a torch.export program, to be run by torch."""
    return torch.export.load(path).module()


def open_onnx(path: Path) -> Run | None:
    """Opens an ONNX file, to be run by onnxruntime with as many threads as torch; None if it is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda waveform: torch.from_numpy(session.run(None, {"waveform": waveform.numpy()})[0])
