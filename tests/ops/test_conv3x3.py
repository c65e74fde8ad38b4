"""conv3x3 against its definition in float64, its gradients, and what it must refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from task_aware import ops
from task_aware.ops import _extension

from .accuracy import check_gradients, error

if not _extension.extension.cpu:
    pytest.skip(f"no CPU kernels: {_extension.extension.cpu_absent}", allow_module_level=True)

# (B, C, K, F, T): one of everything, remainders in both directions, odd channels, chunks of tiles across items.
SHAPES = [
    *((1, 1, 1, 1, 1), (2, 16, 32, 8, 70), (3, 5, 7, 3, 45), (1, 33, 17, 2, 250), (2, 64, 64, 1, 3)),
    *((1, 8, 16, 6, 401), (5, 3, 2, 2, 2), (1, 16, 16, 5, 4)),
]
EMPTY = (0, 4, 3, 2, 8)
#: A few times the error of a plain convolution, as differences of neighbours are multiplied.
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-14, torch.bfloat16: 2**-8}

Shape = tuple[int, int, int, int, int]


def sample_inputs(dtype: torch.dtype = torch.float32, shape: Shape = SHAPES[2]) -> list[Tensor]:
    B, C, K, F, T = shape
    generator = torch.Generator().manual_seed(C + T)
    draws = [(2.0, (B, C, F, T)), ((9 * C) ** -0.5, (K, C, 3, 3)), (1.0, (K,))]
    return [(scale * torch.randn(size, generator=generator)).to(dtype) for scale, size in draws]


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("shape", [*SHAPES, EMPTY], ids=str)
def test_values_and_gradients(dtype: torch.dtype, shape: Shape) -> None:
    leaves = [x.requires_grad_() for x in sample_inputs(dtype, shape)]
    doubles = [x.detach().double().requires_grad_() for x in leaves]
    out = ops.conv3x3(*leaves, backend="native")
    wanted = ops.conv3x3_reference(*doubles)
    assert out.dtype == dtype and out.shape == wanted.shape
    assert error(out, wanted.detach()) < TOLERANCE[dtype]
    check_gradients(out, leaves, wanted, doubles, 4 * TOLERANCE[dtype])


def test_gradcheck() -> None:
    for shape in [(2, 3, 4, 5, 7), (1, 2, 1, 1, 1)]:
        inputs = [x.requires_grad_() for x in sample_inputs(torch.float64, shape)]
        assert torch.autograd.gradcheck(ops.conv3x3, inputs)


def test_a_click_reaches_its_neighbours_alone() -> None:
    """Across the seams of tiles and of chunks, and not beyond the edges."""
    weight, none = torch.arange(1.0, 10.0).view(1, 1, 3, 3), torch.zeros(1)
    for f, t in [(0, 0), (1, 3), (2, 4), (4, 95), (4, 96), (3, 409)]:
        x = torch.zeros(1, 1, 5, 410)
        x[0, 0, f, t] = 1
        out = ops.conv3x3(x, weight, none, backend="native")
        torch.testing.assert_close(out, torch.nn.functional.conv2d(x, weight, padding=1), rtol=1e-5, atol=1e-5)


def test_what_is_loud_disturbs_its_neighbours_alone() -> None:
    """Errors are relative to the largest value of a tile, and there is none elsewhere."""
    x, weight, bias = sample_inputs(shape=(1, 16, 16, 8, 64))
    wanted = ops.conv3x3_reference(x.double(), weight.double(), bias.double())
    for loud in (1e6, torch.inf, torch.nan):
        changed = x.clone()
        changed[:, :, 3, 30] = loud
        out = ops.conv3x3(changed, weight, bias, backend="native")
        quiet = torch.ones(8, 64, dtype=torch.bool)
        quiet[0:8, 24:37] = False
        assert error(out[..., quiet], wanted[..., quiet]) < TOLERANCE[torch.float32]
        if loud == 1e6:
            far = ops.conv3x3_reference(changed.double(), weight.double(), bias.double())
            assert error(out, far) < TOLERANCE[torch.float32]
        else:
            assert not out[:, :, 2:5, 29:32].isfinite().any()


def test_strided_views() -> None:
    x, weight, bias = sample_inputs(shape=(2, 16, 8, 6, 30))
    plain = ops.conv3x3(x, weight, bias, backend="native")
    last = x.contiguous(memory_format=torch.channels_last)
    views = last, weight.mT.contiguous().mT, torch.stack([bias, bias], 1)[:, 0]
    assert torch.equal(ops.conv3x3(*views, backend="native"), plain)
    wide = torch.cat([x, x], -1)[..., :30]
    assert torch.equal(ops.conv3x3(wide, weight, bias, backend="native"), plain)


def test_threads_change_nothing() -> None:
    inputs = sample_inputs(shape=(3, 16, 16, 9, 301))
    threads = torch.get_num_threads()
    results = []
    for count in (1, 3):
        torch.set_num_threads(count)
        results.append(ops.conv3x3(*inputs, backend="native"))
    torch.set_num_threads(threads)
    assert torch.equal(*results)


def test_opcheck() -> None:
    torch.library.opcheck(torch.ops.task_aware.conv3x3.default, [x.requires_grad_() for x in sample_inputs()])


def test_compiles_as_one_graph() -> None:
    inputs = [x.requires_grad_() for x in sample_inputs()]
    compiled = torch.compile(ops.conv3x3, fullgraph=True, backend="aot_eager")
    results = [function(*inputs) for function in (compiled, ops.conv3x3)]
    grads = [torch.autograd.grad(result.square().sum(), inputs) for result in results]
    assert torch.equal(*results)
    torch.testing.assert_close(*grads)


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"x": torch.zeros(5, 3, 45)}, ValueError, r"x is \[5,3,45\], expected \[B,C,F,T\]"),
    ({"weight": torch.zeros(7, 4, 3, 3)}, ValueError, r"weight is \[7,4,3,3\], expected \[K,C,3,3\] = \[7,5,3,3\]"),
    ({"weight": torch.zeros(7, 5, 3, 1)}, ValueError, r"weight is \[7,5,3,1\], expected \[K,C,3,3\]"),
    ({"bias": torch.zeros(6)}, ValueError, r"bias is \[6\], expected \[K\] = \[7\]"),
    ({"bias": torch.zeros(7, dtype=torch.int64)}, TypeError, "bias is torch.int64, expected float32"),
    ({"bias": torch.zeros(7, device="meta")}, ValueError, "bias is on meta and x is on cpu"),
    ({"weight": torch.zeros(0, 5, 3, 3), "bias": torch.zeros(0)}, ValueError, "C and K are 5 and 0"),
    ({"backend": "fast"}, ValueError, "backend is 'fast'"),
]


@pytest.mark.parametrize(("change", "kind", "message"), REFUSED)
def test_refusals(change: dict[str, Any], kind: type[Exception], message: str) -> None:
    arguments = dict(zip(("x", "weight", "bias"), sample_inputs(), strict=True))
    with pytest.raises(kind, match=message):
        ops.conv3x3(**{**arguments, **change})
