"""The kernel of mel_spectrogram.cuh, run on the host."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from task_aware import ops
from task_aware.ops.mel_spectrogram import _cached_tables

from .conftest import Programs, every_build
from .running import Case, check, dtype_name

# The detector's configuration, the shortest clip, powers of two from the shortest on (below 256 by the definition) to
# the longest frame of a block, other frames by the definition (of 2, 3 and 5; of the prime 101), a hop longer than the
# frame. Blocks of four frames, two and one, whole and not.
CASES: list[tuple[tuple[int, int], dict[str, Any]]] = [
    ((2, 1500), {}),
    ((1, 1025), {"hop": 400}),
    ((2, 700), {"n_fft": 512, "hop": 100, "n_mels": 40}),
    ((1, 40), {"n_fft": 2, "hop": 13, "n_mels": 1}),
    ((2, 40), {"n_fft": 4, "hop": 9, "n_mels": 1}),
    ((1, 33), {"n_fft": 8, "hop": 5, "n_mels": 2}),
    ((1, 33), {"n_fft": 64, "hop": 5, "n_mels": 150}),
    ((3, 300), {"n_fft": 256, "hop": 60, "n_mels": 12}),
    ((1, 2600), {"n_fft": 4096, "hop": 900, "n_mels": 10}),
    ((1, 4200), {"n_fft": 8192, "hop": 4200, "n_mels": 10}),
    ((1, 600), {"n_fft": 1024, "hop": 300, "n_mels": 10}),
    ((1, 9000), {"n_fft": 16384, "hop": 9000, "n_mels": 20}),
    ((1, 150), {"n_fft": 120, "hop": 33, "n_mels": 20, "f_min": 50.0, "f_max": 7000.0}),
    ((1, 150), {"n_fft": 202, "hop": 77, "n_mels": 10, "sample_rate": 44100}),
]
DEFAULTS = {"sample_rate": 16000, "n_fft": 2048, "hop": 255, "n_mels": 128, "f_min": 0.0, "f_max": 8000.0}
TOLERANCE = {torch.float32: 1.5e-6, torch.float64: 4e-15}  # relative to the largest value: one FFT


def case(waveform: Tensor, options: dict[str, Any]) -> Case:
    given = DEFAULTS | options
    C, N = waveform.shape
    hop, n_fft, F = given["hop"], given["n_fft"], given["n_mels"]
    tables = _cached_tables(
        given["sample_rate"], n_fft, F, given["f_min"], given["f_max"], waveform.dtype, waveform.device, True
    )
    sizes = {"C": C, "N": N, "hop": hop, "n_fft": n_fft, "F": F, "dtype": dtype_name(waveform.dtype)}
    outputs = {"mel": (waveform.dtype, (C, F, N // hop + 1))}
    return Case(f"{(C, N)} {options}", sizes | {"waveform": waveform} | tables._asdict(), outputs)


@every_build(list(TOLERANCE))
def test_kernel(programs: Programs, build: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    fitting = [(shape, o) for shape, o in CASES if dtype == torch.float32 or o.get("n_fft") != 16384]
    waveforms = [torch.randn(shape, generator=generator).to(dtype) for shape, _ in fitting]
    options = [o for _, o in fitting]
    cases = [case(waveform, o) for waveform, o in zip(waveforms, options, strict=True)]
    results = programs("mel_spectrogram", build).run(cases, schedules=2 if build == "plain" else 1)
    for item, result, waveform, o in zip(cases, results, waveforms, options, strict=True):
        check(item.name, result["mel"], ops.mel_spectrogram_reference(waveform.double(), **o), TOLERANCE[dtype])


def test_nan_spoils_the_frames_that_hold_it(programs: Programs, build: str) -> None:
    waveform = torch.randn(1, 700)
    waveform[0, 350] = torch.nan
    (result,) = programs("mel_spectrogram", build).run([case(waveform, {"n_fft": 64, "hop": 50, "n_mels": 8})])
    # Frame t is centred at 50 t and 64 long: only the seventh holds sample 350.
    assert result["mel"].isnan().any(1)[0].tolist() == [t == 7 for t in range(15)]
