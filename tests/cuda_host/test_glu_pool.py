"""The kernels of glu_pool_mma.cuh and glu_pool.cuh, run on the host."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from task_aware import ops

from .conftest import Programs, every_build
from .running import Case, check, dtype_name

# (B, C, F, T, pool): one of everything, each shape of a block or number of channels per thread, in whole groups and
# not, blocks that end early, three frames a pool, pools as large as a block and larger than one.
SHAPES = [
    *((1, 1, 1, 1, (1, 1)), (2, 16, 4, 70, (2, 2)), (1, 20, 2, 65, (2, 1)), (1, 50, 1, 33, (1, 1))),
    *((1, 70, 2, 20, (1, 2)), (2, 5, 3, 130, (3, 3)), (1, 128, 1, 18, (1, 2)), (1, 66, 2, 65, (2, 32))),
    *((1, 3, 5, 33, (5, 32)), (1, 17, 3, 90, (1, 1))),
]
TOLERANCE = {torch.float64: 1e-14, torch.float32: 2e-6, torch.bfloat16: 2**-8}
# Of the backward on tensor cores, which rounds twice: each gradient that comes through the gate, and the sum of all.
TWICE_ROUNDED = 2**-7

Inputs = tuple[Tensor, Tensor, Tensor, Tensor]  # x, weight, bias, grad


def sample(B: int, C: int, F: int, T: int, pool: tuple[int, int], dtype: torch.dtype) -> Inputs:
    torch.manual_seed(C)
    compute = torch.promote_types(dtype, torch.float32)
    weight, grad = torch.randn(C, C) / C**0.5, torch.randn(B, C, F // pool[0], T // pool[1])
    x, bias = torch.randn(B, C, F, T), torch.randn(C)
    return x.to(dtype), weight.to(dtype).to(compute), bias.to(compute), grad.to(dtype)


def make_case(inputs: Inputs, pool: tuple[int, int], operation: str, architecture: int) -> tuple[Case, Tensor]:
    """A case of kernels compiled for `architecture`, and its output in float64."""
    x, weight, bias, grad = inputs
    names = dict(zip("BCFT", x.shape, strict=True)) | {"mel": pool[0], "time": pool[1], "operation": operation}
    names |= {"architecture": architecture, "dtype": dtype_name(x.dtype)}
    tensors = {"x": x, "weight": weight, "bias": bias, "transposed": weight.t().contiguous(), "grad": grad}
    doubles = x.double().requires_grad_()
    wanted = ops.glu_pool_reference(doubles, weight.double(), bias.double(), pool)
    if operation == "backward":
        (wanted,) = torch.autograd.grad(wanted, doubles, grad.double())
    name = f"{list(x.shape)} {pool}"
    return Case(name, names | tensors, {"out": (x.dtype, tuple(wanted.shape))}), wanted.detach()


@every_build(list(TOLERANCE))
@pytest.mark.parametrize("architecture", [75, 80])
@pytest.mark.parametrize("operation", ["forward", "backward"])
def test_kernel(programs: Programs, build: str, dtype: torch.dtype, operation: str, architecture: int) -> None:
    if dtype == torch.float64 and architecture > 75:
        pytest.skip("float64 has the same kernels on every architecture")
    pairs = [make_case(sample(*shape, dtype), shape[4], operation, architecture) for shape in SHAPES]
    results = programs("glu_pool", build).run([case for case, _ in pairs])
    for (case, want), result, (_, _, F, T, (mel, time)) in zip(pairs, results, SHAPES, strict=True):
        # what no pool reaches, the caller has filled with zeros
        used = (..., slice(F // mel * mel), slice(T // time * time)) if operation == "backward" else ...
        got, want = result["out"][used], want[used]
        twice = operation == "backward" and architecture == 80 and dtype == torch.bfloat16
        check(case.name, got, want, TWICE_ROUNDED if twice else TOLERANCE[dtype], scale=float(want.abs().max()))


def one_sign(inputs: Inputs) -> Inputs:
    """Nothing cancels what is cut off from sums."""
    x, weight, bias, grad = inputs
    return x.abs(), weight.abs(), bias.abs(), grad.abs()


def of_all_sizes(inputs: Inputs) -> Inputs:
    """Channels from 1e-30 to 1e4, which weights of the opposite sizes make alike."""
    x, weight, bias, grad = inputs
    sizes = torch.logspace(-30, 4, len(bias))
    return x * sizes[:, None, None], weight / sizes, bias, grad


def of_24_bits(inputs: Inputs) -> Inputs:
    """Numbers of which TF32 leaves most to the second part."""
    x, weight, bias, grad = inputs
    rest = 1 + 2.0**-11 - 2.0**-23
    return x.sign() * rest, weight.sign() * rest, bias, grad.sign() * rest


@pytest.mark.parametrize("operation", ["forward", "backward"])
@pytest.mark.parametrize("change", [one_sign, of_all_sizes, of_24_bits])
def test_float32_on_tensor_cores_is_float32(
    programs: Programs, change: Callable[[Inputs], Inputs], operation: str
) -> None:
    if change is of_all_sizes and operation == "backward":
        pytest.skip("its weights make gradients of all sizes")
    inputs = change(sample(1, 128, 1, 64, (1, 1), torch.float32))
    case, wanted = make_case(inputs, (1, 1), operation, 80)
    (result,) = programs("glu_pool", "plain").run([case])
    check(case.name, result["out"], wanted, TOLERANCE[torch.float32])


def test_what_is_not_finite_stays_at_its_position(programs: Programs) -> None:
    x, weight, bias, grad = sample(1, 20, 2, 40, (1, 1), torch.float32)
    x[0, 3, 0, 7], x[0, 4, 1, 9], x[0, 5, 1, 11] = torch.nan, torch.inf, -torch.inf
    clean = [[True] * 40, [True] * 40]
    clean[0][7] = clean[1][9] = clean[1][11] = False
    for operation in ("forward", "backward"):
        case, wanted = make_case((x, weight, bias, grad), (1, 1), operation, 80)
        (result,) = programs("glu_pool", "plain").run([case])
        finite = result["out"].isfinite()[0]
        assert torch.equal(finite, torch.tensor(clean).expand_as(finite))
        check(operation, result["out"][0][finite], wanted[0][finite], TOLERANCE[torch.float32])
