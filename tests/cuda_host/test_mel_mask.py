"""The kernels of mel_mask.cuh, run on the host."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from task_aware import ops

from .conftest import Programs, every_build
from .running import Case, Shifted, check, dtype_name

# Groups of four and their tails (F*T = 592, 903), one element, several chunks of a row, the group path refused.
SHAPES = [(2, 3, 16, 37), (1, 1, 1, 1), (2, 2, 7, 129), (1, 2, 64, 130), (1, 8, 4, 6), (1, 2, 63, 131)]
DTYPES = [torch.float32, torch.float64, torch.bfloat16]
# Relative to the largest value: a few roundings of the dtype (bfloat16 rounds only at the end).
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-14, torch.bfloat16: 2**-8}
OPTIONS = {"floor": 0.02, "amin": 1e-5, "top_db": 50.0}


def sample_inputs(dtype: torch.dtype, shape: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(sum(shape))
    B, _, F, T = shape
    logits = 4 * torch.randn(shape, generator=generator)
    mel = 30 * torch.rand((B, F, T), generator=generator) ** 6  # from below amin to 30
    mean, std = -30 + 5 * torch.randn(F, generator=generator), 5 + 10 * torch.rand(F, generator=generator)
    mel[:, -1, -1], logits[:, :, -1, -1] = 40, 3  # one clear maximum, at the very end
    compute = torch.promote_types(dtype, torch.float32)
    return [logits.to(dtype), mel.to(dtype), mean.to(compute), std.to(compute)]


def with_ties(dtype: torch.dtype) -> list[Tensor]:
    """Equal maxima in several warps, blocks and bands, and much that is held below them."""
    logits, mel, mean, std = sample_inputs(dtype, (2, 3, 8, 300))
    mel = mel * 1e-3
    mel[0, [0, 0, 3, 7], [0, 299, 150, 299]] = 1.0
    mel[1, 5] = 1.0
    return [torch.full_like(logits, 3), mel, mean, std]


def inputs(operation: str, tensors: list[Tensor], shift: int = 0, cache_bytes: int = 1 << 24) -> dict[str, Any]:
    logits, mel, mean, std = tensors
    sizes = dict(zip(("B", "S", "F", "T"), logits.shape, strict=True))
    names = {"operation": operation, "dtype": dtype_name(logits.dtype), "mean": mean, "std": std, "mel": mel}
    return (
        names | sizes | OPTIONS | {"cache_bytes": cache_bytes} | {"logits": Shifted(logits, shift) if shift else logits}
    )


def forward(tensors: list[Tensor], shift: int = 0, cache_bytes: int = 1 << 24) -> Case:
    logits, _, mean, _ = tensors
    outputs = {name: (logits.dtype, tuple(logits.shape)) for name in ("masked", "features")}
    name = f"{tuple(logits.shape)} shifted by {shift}"
    return Case(
        name,
        inputs("forward", tensors, shift, cache_bytes),
        outputs | {"maximum": (mean.dtype, tuple(logits.shape[:2]))},
    )


@every_build(DTYPES)
def test_forward(programs: Programs, build: str, dtype: torch.dtype) -> None:
    samples = [sample_inputs(dtype, shape) for shape in SHAPES]
    silent = sample_inputs(dtype, (1, 2, 4, 5))
    silent[1].zero_()
    samples.append(silent)
    cases = [forward(tensors) for tensors in samples] + [forward(samples[0], shift) for shift in (1, 2, 4)]
    cases += [forward(samples[0], cache_bytes=5000)]  # two rows at a time in float32, four in bfloat16
    results = programs("mel_mask", build).run(cases, schedules=3 if build == "plain" else 1)
    for case, result, tensors in zip(cases, results, [*samples, *[samples[0]] * 4], strict=True):
        wanted = ops.mel_mask_reference(*(x.double() for x in tensors), **OPTIONS)
        check(case.name, result["masked"], wanted.mel, TOLERANCE[dtype])
        check(case.name, result["features"], wanted.features, TOLERANCE[dtype])
        check(case.name, result["maximum"], wanted.mel.amax((2, 3)).clamp(min=OPTIONS["amin"]), 1e-6)


def gradients(tensors: list[Tensor], which: tuple[str, ...]) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor]]:
    """Gradients of the outputs named in `which`, and what they become, in float64."""
    logits, mel = (x.double().requires_grad_() for x in tensors[:2])
    result = ops.mel_mask_reference(logits, mel, *(x.double() for x in tensors[2:]), **OPTIONS)
    generator = torch.Generator().manual_seed(0)
    given = {f"grad_{name}": torch.randn(logits.shape, generator=generator).to(tensors[0].dtype) for name in which}
    if "grad_features" in given:
        # Within rounding of a threshold an element may fall on either side: it gets no gradient here.
        masked = result.mel.detach()
        threshold = masked.amax((2, 3), keepdim=True) * 10 ** (-OPTIONS["top_db"] / 20)
        for limit in (threshold, torch.full_like(threshold, OPTIONS["amin"])):
            given["grad_features"] = given["grad_features"].where((masked / limit - 1).abs() > 1e-5, 0)
    values = [{"masked": result.mel, "features": result.features}[name] for name in which]
    return given, torch.autograd.grad(values, [logits, mel], [grad.double() for grad in given.values()])


def backward(
    tensors: list[Tensor],
    which: tuple[str, ...] = ("masked", "features"),
    shift: int = 0,
    maximum: Tensor | None = None,
) -> Case:
    logits, mel, mean, _ = tensors
    if maximum is None:
        maximum = torch.ones(logits.shape[:2], dtype=mean.dtype)
    given = gradients(tensors, which)[0] | {"maximum": maximum}
    outputs = {"grad_logits": (logits.dtype, tuple(logits.shape)), "grad_mel": (logits.dtype, tuple(mel.shape))}
    return Case(f"{tuple(logits.shape)}, {which}", inputs("backward", tensors, shift) | given, outputs)


@every_build(DTYPES)
def test_backward(programs: Programs, build: str, dtype: torch.dtype) -> None:
    program = programs("mel_mask", build)
    samples = [(sample_inputs(dtype, shape), 0) for shape in SHAPES] + [(sample_inputs(dtype, SHAPES[0]), 1)]
    samples.append((with_ties(dtype), 0))
    maxima = [result["maximum"] for result in program.run([forward(tensors) for tensors, _ in samples])]
    cases, wanted = [], []
    for which in (("masked", "features"), ("masked",), ("features",)):
        for (tensors, shift), maximum in zip(samples, maxima, strict=True):
            cases.append(backward(tensors, which, shift, maximum))
            wanted.append(gradients(tensors, which)[1])
    results = program.run(cases, schedules=3 if build == "plain" else 1)
    for case, result, want in zip(cases, results, wanted, strict=True):
        check(case.name, result["grad_logits"], want[0], 4 * TOLERANCE[dtype])
        check(case.name, result["grad_mel"], want[1], 4 * TOLERANCE[dtype])


def test_nan_spoils_its_source_alone(programs: Programs, build: str) -> None:
    tensors = sample_inputs(torch.float32, (2, 3, 16, 37))
    tensors[0][1, 2, 3, 4] = torch.nan
    (result,) = programs("mel_mask", build).run([forward(tensors)])
    spoilt = torch.zeros(2, 3, dtype=torch.bool)
    spoilt[1, 2] = True
    assert torch.equal(result["features"].isnan().flatten(2).all(2), spoilt)
    assert torch.equal(result["features"].isnan().flatten(2).any(2), spoilt)
    assert torch.equal(result["maximum"].isnan(), spoilt)
    assert int(result["masked"].isnan().sum()) == 1
