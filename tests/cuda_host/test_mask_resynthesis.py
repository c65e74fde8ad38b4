"""The kernels of mask_resynthesis.cuh, run on the host."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from task_aware import ops
from task_aware.ops.mask_resynthesis import _cached_tables

from .conftest import Programs, every_build
from .running import Case, check, dtype_name

# (B, S, F, N) and configuration: several blocks of a source and a last frame alone, bins beyond the bands, more bands
# than bins, the detector's configuration at the shortest clip, the longest frame.
CASES: list[tuple[tuple[int, int, int, int], dict[str, Any]]] = [
    ((2, 2, 12, 2900), {"n_fft": 512, "hop": 240}),
    ((1, 1, 20, 900), {"n_fft": 512, "hop": 470, "f_min": 500.0, "f_max": 7000.0}),
    ((1, 1, 300, 600), {"n_fft": 512, "hop": 512}),
    ((1, 1, 128, 1025), {"n_fft": 2048, "hop": 255}),
    ((1, 1, 5, 2100), {"n_fft": 4096, "hop": 2000}),
]
TOLERANCE = {torch.float32: 3e-6, torch.float64: 5e-15}  # relative to the loudest: two FFTs, divided by few windows


def sample(shape: tuple[int, int, int, int], hop: int, dtype: torch.dtype) -> dict[str, Tensor]:
    B, S, F, N = shape
    generator = torch.Generator().manual_seed(sum(shape))
    tensors = {
        "waveform": torch.randn(B, N, generator=generator),
        "masks": torch.rand(B, S, F, N // hop + 1, generator=generator),
        "grad": torch.randn(B, S, N, generator=generator),
    }
    return {name: tensor.to(dtype) for name, tensor in tensors.items()}


def case(operation: str, tensors: dict[str, Tensor], options: dict[str, Any]) -> Case:
    waveform, masks, grad = (tensors[name] for name in ("waveform", "masks", "grad"))
    B, S, F, _ = masks.shape
    N, n_fft = waveform.shape[1], options["n_fft"]
    edges = options.get("f_min", 0.0), options.get("f_max", 8000.0)
    tables = _cached_tables(16000, n_fft, F, *edges, waveform.dtype, waveform.device, True)
    sizes = {"B": B, "S": S, "F": F, "N": N, "n_fft": n_fft, "hop": options["hop"]}
    given = {"masks": masks} if operation == "forward" else {"grad": grad}
    output = {"sources": grad} if operation == "forward" else {"grad_masks": masks}
    return Case(
        f"{operation} {(B, S, F, N)} {options}",
        {"operation": operation, "dtype": dtype_name(waveform.dtype), "waveform": waveform}
        | sizes
        | given
        | tables._asdict(),
        {name: (x.dtype, tuple(x.shape)) for name, x in output.items()},
    )


@every_build(list(TOLERANCE))
def test_kernels(programs: Programs, build: str, dtype: torch.dtype) -> None:
    fitting = [(shape, o) for shape, o in CASES if dtype == torch.float32 or o["n_fft"] != 4096]
    samples = [sample(shape, o["hop"], dtype) for shape, o in fitting]
    pairs = list(zip(samples, [o for _, o in fitting], strict=True))
    cases = [case(operation, tensors, o) for tensors, o in pairs for operation in ("forward", "backward")]
    results = programs("mask_resynthesis", build).run(cases, schedules=2 if build == "plain" else 1)
    for k, (tensors, o) in enumerate(pairs):
        doubles = {name: tensor.double() for name, tensor in tensors.items()}
        masks = doubles["masks"].requires_grad_()
        sources = ops.mask_resynthesis_reference(doubles["waveform"], masks, **o)
        (grad,) = torch.autograd.grad(sources, masks, doubles["grad"])
        check(cases[2 * k].name, results[2 * k]["sources"], sources, TOLERANCE[dtype])
        check(cases[2 * k + 1].name, results[2 * k + 1]["grad_masks"], grad, TOLERANCE[dtype])


def test_nan_stays_within_its_source_and_its_pair_of_frames(programs: Programs, build: str) -> None:
    options = {"n_fft": 512, "hop": 240}
    tensors = sample((1, 2, 12, 2900), 240, torch.float32)
    tensors["masks"][0, 1, 3, 5] = torch.nan
    (result,) = programs("mask_resynthesis", build).run([case("forward", tensors, options)])
    spoiled = result["sources"].isnan()[0]
    # Frames 4 and 5, centred at 960 and 1200, go through one transform.
    assert not spoiled[0].any() and spoiled[1].nonzero()[:, 0].tolist() == list(range(960 - 256, 1200 + 256))
