"""The kernels of mel_mask.cuh and mel_mask_backward.cuh, run on the host."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from task_aware import ops

from .conftest import Programs, every_build
from .running import Case, Shifted, check, dtype_name

# Bands of whole groups (T = 520), groups across bands (T = 37, 130, 6) and bands shorter than a group (T = 3), rows
# that do not fall into groups (F*T = 903, 8253), one element, several chunks of a row.
SHAPES = [
    (2, 3, 16, 37),
    (1, 1, 1, 1),
    (2, 2, 7, 129),
    (1, 2, 64, 130),
    (1, 8, 4, 6),
    (1, 2, 63, 131),
    (1, 2, 9, 520),
    (2, 1, 4, 3),
]
DTYPES = [torch.float32, torch.float64, torch.bfloat16]
# Relative to the largest value: a few roundings of the dtype (bfloat16 rounds only at the end).
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-14, torch.bfloat16: 2**-8}
OPTIONS = {"floor": 0.02, "amin": 1e-5, "top_db": 50.0}
SETTINGS = OPTIONS | {"cache_bytes": 1 << 24, "tied_blocks": 256, "wants_mel": 1}


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


def inputs(operation: str, tensors: list[Tensor], shift: int = 0, **settings: float) -> dict[str, Any]:
    logits, mel, mean, std = tensors
    sizes = dict(zip(("B", "S", "F", "T"), logits.shape, strict=True))
    names = {"operation": operation, "dtype": dtype_name(logits.dtype), "mean": mean, "std": std, "mel": mel}
    return names | sizes | SETTINGS | settings | {"logits": Shifted(logits, shift) if shift else logits}


def forward(tensors: list[Tensor], shift: int = 0, **settings: float) -> Case:
    logits, _, mean, _ = tensors
    outputs = {name: (logits.dtype, tuple(logits.shape)) for name in ("masked", "features")}
    name = f"{tuple(logits.shape)} shifted by {shift}, {settings}"
    return Case(
        name,
        inputs("forward", tensors, shift, **settings),
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


def gradients(
    tensors: list[Tensor], which: tuple[str, ...], **options: float
) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor]]:
    """Gradients of the outputs named in `which`, and what they become, in float64."""
    options = OPTIONS | options
    logits, mel = (x.double().requires_grad_() for x in tensors[:2])
    result = ops.mel_mask_reference(logits, mel, *(x.double() for x in tensors[2:]), **options)
    generator = torch.Generator().manual_seed(0)
    given = {f"grad_{name}": torch.randn(logits.shape, generator=generator).to(tensors[0].dtype) for name in which}
    if "grad_features" in given:
        # Within rounding of a threshold an element may fall on either side: it gets no gradient here.
        masked = result.mel.detach()
        threshold = masked.amax((2, 3), keepdim=True) * 10 ** (-options["top_db"] / 20)
        for limit in (threshold, torch.full_like(threshold, options["amin"])):
            given["grad_features"] = given["grad_features"].where((masked / limit - 1).abs() > 1e-5, 0)
    values = [{"masked": result.mel, "features": result.features}[name] for name in which]
    return given, torch.autograd.grad(values, [logits, mel], [grad.double() for grad in given.values()])


def backward(
    tensors: list[Tensor],
    which: tuple[str, ...] = ("masked", "features"),
    shift: int = 0,
    maximum: Tensor | None = None,
    tied_blocks: int = 256,
    wants_mel: bool = True,
    **options: float,
) -> Case:
    logits, mel, mean, _ = tensors
    if maximum is None:
        maximum = torch.ones(logits.shape[:2], dtype=mean.dtype)
    given = gradients(tensors, which, **options)[0] | {"maximum": maximum}
    outputs = {"grad_logits": (logits.dtype, tuple(logits.shape)), "grad_mel": (logits.dtype, tuple(mel.shape))}
    settings = inputs("backward", tensors, shift, tied_blocks=tied_blocks, wants_mel=int(wants_mel), **options)
    return Case(f"{tuple(logits.shape)}, {which}, {options}", settings | given, outputs)


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


@every_build([torch.float32])
@pytest.mark.parametrize(
    "options",
    [{"top_db": math.inf}, {"top_db": 0.0}, {"floor": 0.0}, {"amin": 1e3}, {"amin": 1e-37, "top_db": 500.0}],
    ids=str,
)
def test_options(programs: Programs, build: str, dtype: torch.dtype, options: dict[str, float]) -> None:
    program = programs("mel_mask", build)
    tensors = sample_inputs(dtype, (2, 3, 16, 37))
    tensors[0][0, 0, 0, :4] = torch.tensor([100.0, -100.0, torch.inf, -torch.inf])
    tensors[1][1, 2, :3] = torch.tensor([0.0, -1.0, 1e-30])
    (result,) = program.run([forward(tensors, **options)])
    wanted = ops.mel_mask_reference(*(x.double() for x in tensors), **OPTIONS | options)
    check("masked", result["masked"], wanted.mel, TOLERANCE[dtype])
    check("features", result["features"], wanted.features, TOLERANCE[dtype])
    (result,) = program.run([backward(tensors, maximum=result["maximum"], **options)])
    for name, want in zip(
        ("grad_logits", "grad_mel"), gradients(tensors, ("masked", "features"), **options)[1], strict=True
    ):
        check(name, result[name], want, 4 * TOLERANCE[dtype])


@every_build(DTYPES)
def test_ties_everywhere(programs: Programs, build: str, dtype: torch.dtype) -> None:
    """All steps are taken again by however many blocks, 257 by one; a step's sources each alone without grad_mel."""
    program = programs("mel_mask", build)
    loud_and_held = torch.tensor([1.0, 1e-4]).repeat(1, 1, 33000)[..., :65793]
    samples = [with_ties(dtype), [x.to(dtype) for x in (torch.zeros(1, 1, 1, 65793), loud_and_held)]]
    samples[1] += [torch.zeros(1, dtype=samples[0][2].dtype), torch.ones(1, dtype=samples[0][2].dtype)]
    for tensors in samples:
        (first,) = program.run([forward(tensors)])
        cases = [
            backward(tensors, maximum=first["maximum"], tied_blocks=blocks, wants_mel=wants_mel)
            for blocks in ((3,) if build == "thread" else (1, 3, 256))  # the order of accesses is the same
            for wants_mel in (True, False)
        ]
        results = program.run(cases)
        for name, want in zip(("grad_logits", "grad_mel"), gradients(tensors, ("masked", "features"))[1], strict=True):
            check(name, results[0][name], want, 4 * TOLERANCE[dtype])
        for result in results:
            assert all(torch.equal(value, results[0][name]) for name, value in result.items())
        assert [*results[1]] == ["grad_logits"]


def test_float32_is_as_exact_as_documented(programs: Programs) -> None:
    """With special functions as wrong as PTX allows: masks and decibels each to their own size, and decibels near 0."""
    generator = torch.Generator().manual_seed(0)
    logits = 30 * torch.rand(2, 1, 1, 4096, generator=generator) - 15
    mel = 10 ** (10 * torch.rand(2, 1, 4096, generator=generator) - 5)
    logits[1], mel[1] = 100, 1 + 1e-6 * torch.randn(1, 4096, generator=generator)
    tensors = [logits, mel, torch.zeros(1), torch.ones(1)]
    options = {"floor": 0.0, "amin": 1e-30, "top_db": math.inf}
    (result,) = programs("mel_mask", "plain").run([forward(tensors, **options)])
    wanted = ops.mel_mask_reference(*(x.double() for x in tensors), **options)
    torch.testing.assert_close(result["masked"].double(), wanted.mel, rtol=2e-6, atol=0)
    torch.testing.assert_close(result["features"].double(), wanted.features, rtol=5e-7, atol=2e-5)
    torch.testing.assert_close(result["features"][1].double(), wanted.features[1], rtol=0, atol=4e-6)


def test_divisor(programs: Programs) -> None:
    largest = 2**31 - 1
    divisors = [1, 2, 3, 5, 7, 79, 628, 641, 2**16 - 1, 2**16 + 1, 2**30 - 1, 2**30, 2**30 + 1, largest - 1, largest]
    numbers, by = [], []
    for divisor in divisors:
        for multiple in (0, 1, 2, largest // divisor // 2, largest // divisor):
            near = [multiple * divisor + offset for offset in (-1, 0, 1)] + [largest]
            numbers += [number for number in near if 0 <= number <= largest]
            by += [divisor] * (len(numbers) - len(by))
    tensors = {"numbers": torch.tensor(numbers, dtype=torch.int32), "divisors": torch.tensor(by, dtype=torch.int32)}
    case = Case("divide", {"operation": "divide", "count": len(by)} | tensors, {"quotients": (torch.int32, (len(by),))})
    (result,) = programs("mel_mask", "address").run([case])
    assert result["quotients"].tolist() == [number // divisor for number, divisor in zip(numbers, by, strict=True)]


@pytest.mark.parametrize("where", ["logits", "mel"])
def test_nan_spoils_its_source_alone(programs: Programs, build: str, where: str) -> None:
    program = programs("mel_mask", build)
    tensors = sample_inputs(torch.float32, (2, 3, 16, 37))
    if where == "logits":
        tensors[0][1, 2, 3, 4] = torch.nan
    else:
        tensors[1][1, 3, 4] = torch.nan
    wanted = ops.mel_mask_reference(*tensors, **OPTIONS)
    (result,) = program.run([forward(tensors)])
    assert torch.equal(result["masked"].isnan(), wanted.mel.isnan())
    assert torch.equal(result["features"].isnan(), wanted.features.isnan())
    assert torch.equal(result["maximum"].isnan(), wanted.features.isnan().flatten(2).all(2))
    (result,) = program.run([backward(tensors, maximum=result["maximum"])])
    want = gradients(tensors, ("masked", "features"))[1]
    assert torch.equal(result["grad_logits"].isnan(), want[0].isnan())
    assert torch.equal(result["grad_mel"].isnan(), want[1].isnan())
