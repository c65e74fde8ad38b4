"""conv_glu_pool against its definition in float64, its gradients, and what it must refuse."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from task_aware import ops
from task_aware.ops.conv_glu_pool import MOST_CHANNELS_ON_CUDA

from .accuracy import check_gradients, error

# (B, C, F, T, pool): one of everything, remainders in both directions, odd channels, tiles that begin and end early.
SHAPES = [
    *((1, 1, 1, 1, (1, 1)), (2, 16, 8, 70, (2, 2)), (3, 5, 7, 45, (2, 3)), (1, 16, 4, 1030, (2, 2))),
    *((2, 7, 3, 600, (1, 2)), (1, 33, 2, 65, (2, 32)), (1, 3, 2, 32, (1, 32)), (2, 4, 5, 3, (5, 3))),
]
EMPTY = (0, 4, 2, 8, (2, 2))
# In bfloat16 the convolution's output is rounded before it is multiplied.
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-14, torch.bfloat16: 2**-7}

Shape = tuple[int, int, int, int, tuple[int, int]]


def sample_inputs(device: str, dtype: torch.dtype = torch.float32, shape: Shape = SHAPES[2]) -> list[Tensor]:
    B, C, F, T, _ = shape
    generator = torch.Generator().manual_seed(C + T)
    shapes = [(B, F, T), (C, 3, 3), (C,), (C, C), (C,)]
    scales = [2, 0.5, 1, C**-0.5, 1]
    draws = [torch.randn(size, generator=generator) * scale for size, scale in zip(shapes, scales, strict=True)]
    return [tensor.to(device, dtype) for tensor in draws]


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("shape", [*SHAPES, EMPTY], ids=str)
def test_values_and_gradients(device: str, kernels: str, dtype: torch.dtype, shape: Shape) -> None:
    if kernels != "cpu" and shape[1] > MOST_CHANNELS_ON_CUDA:
        pytest.skip("more channels than its CUDA kernels hold")
    pool = shape[4]
    leaves = [x.requires_grad_() for x in sample_inputs(device, dtype, shape)]
    doubles = [x.detach().cpu().double().requires_grad_() for x in leaves]
    out = ops.conv_glu_pool(*leaves, pool, backend="native")
    wanted = ops.conv_glu_pool_reference(*doubles, pool)
    assert out.dtype == dtype and out.shape == wanted.shape
    assert error(out, wanted.detach()) < TOLERANCE[dtype]
    check_gradients(out, leaves, wanted, doubles, 4 * TOLERANCE[dtype])


def test_gradcheck(device: str) -> None:
    for shape in [(2, 3, 4, 5, (2, 2)), (1, 2, 3, 35, (1, 3))]:
        inputs = [x.requires_grad_() for x in sample_inputs(device, torch.float64, shape)]
        assert torch.autograd.gradcheck(partial(ops.conv_glu_pool, pool=shape[4], backend="native"), inputs)


def test_it_is_a_convolution_and_glu_pool(device: str) -> None:
    features, kernel, shift, weight, bias = sample_inputs(device, shape=(2, 16, 8, 70, (2, 2)))
    x = torch.nn.functional.conv2d(features[:, None], kernel[:, None], shift, padding=1)
    two = ops.glu_pool(x, weight, bias, (2, 2), backend="native")
    one = ops.conv_glu_pool(features, kernel, shift, weight, bias, (2, 2), backend="native")
    torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


def test_a_click_reaches_its_neighbours_alone(device: str) -> None:
    """Across the seams of tiles, and not beyond the edges."""
    F, T = 5, 1100
    kernel = torch.arange(1.0, 10.0, device=device).view(1, 3, 3)
    one, none = torch.ones(1, device=device), torch.zeros(1, device=device)
    for f, t in [(0, 0), (2, 191), (2, 192), (4, 1099), (3, 32)]:
        features = torch.zeros(1, F, T, device=device)
        features[0, f, t] = 1
        out = ops.conv_glu_pool(features, kernel, none, none[None], one, (1, 1), backend="native")
        around = torch.nn.functional.conv2d(features[:, None], kernel[:, None], padding=1)
        torch.testing.assert_close(out, torch.sigmoid(around))


def test_nan_spoils_its_neighbours_alone(device: str) -> None:
    features, *weights = sample_inputs(device, shape=(1, 5, 6, 40, (1, 1)))
    features[0, 3, 7] = torch.nan
    out = ops.conv_glu_pool(features, *weights, (1, 1), backend="native")
    assert out[0, :, 2:5, 6:9].isnan().all() and out.isnan().sum() == 45


def test_strided_views(device: str) -> None:
    features, kernel, shift, weight, bias = sample_inputs(device)
    views = features.mT.contiguous().mT, kernel.mT.contiguous().mT, shift, weight.t().contiguous().t(), bias
    strided = ops.conv_glu_pool(*views, (2, 3), backend="native")
    assert torch.equal(strided, ops.conv_glu_pool(features, kernel, shift, weight, bias, (2, 3), backend="native"))


def test_opcheck(device: str) -> None:
    inputs = [x.requires_grad_() for x in sample_inputs(device)]
    torch.library.opcheck(torch.ops.task_aware.conv_glu_pool.default, (*inputs, 2, 3))


def test_compiles_as_one_graph(device: str) -> None:
    inputs = [x.requires_grad_() for x in sample_inputs(device)]
    compiled = torch.compile(ops.conv_glu_pool, fullgraph=True, backend="aot_eager")
    results = [function(*inputs, (2, 3)) for function in (compiled, ops.conv_glu_pool)]
    grads = [torch.autograd.grad(result.square().sum(), inputs) for result in results]
    assert torch.equal(*results)
    torch.testing.assert_close(*grads)


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"features": torch.zeros(1, 3, 7, 45)}, ValueError, r"features is \[1,3,7,45\], expected \[B,F,T\]"),
    ({"kernel": torch.zeros(5, 3, 5)}, ValueError, r"kernel is \[5,3,5\], expected \[C,3,3\] = \[5,3,3\]"),
    ({"weight": torch.zeros(5, 4)}, ValueError, r"weight is \[5,4\], expected \[C,C\] = \[5,5\]"),
    ({"shift": torch.zeros(4)}, ValueError, r"shift is \[4\], expected \[C\] = \[5\]"),
    ({"bias": torch.zeros(5, dtype=torch.int64)}, TypeError, "bias is torch.int64, expected float32"),
    ({"bias": torch.zeros(5, device="meta")}, ValueError, "bias is on meta and features is on cpu"),
    (
        {"features": torch.zeros(3, 1, 45)},
        ValueError,
        r"features is \[3,1,45\], which is too small for a pool of \(2, 3\)",
    ),
    ({"pool": (1, 33)}, ValueError, r"pool is \(1, 33\), expected .* time at most 32"),
    ({"backend": "fast"}, ValueError, "backend is 'fast'"),
]


@pytest.mark.parametrize(("change", "kind", "message"), REFUSED)
def test_refusals(change: dict[str, Any], kind: type[Exception], message: str) -> None:
    names = ("features", "kernel", "shift", "weight", "bias")
    arguments = dict(zip(names, sample_inputs("cpu"), strict=True)) | {"pool": (2, 3)}
    with pytest.raises(kind, match=message):
        ops.conv_glu_pool(**{**arguments, **change})
