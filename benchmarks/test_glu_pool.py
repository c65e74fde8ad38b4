"""glu_pool: the detector's gated linear map and pooling, compared with the chain of PyTorch operators."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from task_aware import ops

from .side_by_side import Case, SideBySide

POOL = (2, 2)
HEADLINES = [(10, 16, 128, 628), (10, 128, 16, 157)]


def make_case(shape: tuple[int, int, int, int], dtype: torch.dtype, device: str) -> Case:
    B, C, F, T = shape
    layout = torch.contiguous_format if device == "cuda" else torch.channels_last  # as the detector passes it
    x = torch.randn(shape, device=device).to(dtype).contiguous(memory_format=layout)
    weight, bias = torch.randn(C, C, device=device) / C**0.5, torch.randn(C, device=device)
    grad = torch.randn(B, C, F // POOL[0], T // POOL[1], device=device).to(dtype).contiguous(memory_format=layout)
    single = dtype == torch.float32
    return Case(
        "glu_pool",
        f"[{B},{C},{F},{T}]" if single else f"[{B},{C},{F},{T}] bfloat16",
        (x, weight.to(dtype), bias),
        bytes_forward=x.nbytes + grad.nbytes,
        tolerance=1e-5 if single else 1e-2,
        differentiated=(0,),
        output_gradients=(grad,),
        bytes_backward=2 * x.nbytes + grad.nbytes,
    )


def native(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor]:
    return (ops.glu_pool(x, weight, bias, POOL, backend="native"),)


def all_in_bfloat16(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor]:
    linear = torch.nn.functional.conv2d(x, weight[:, :, None, None], bias.to(x.dtype))
    return (torch.nn.functional.avg_pool2d(linear * torch.sigmoid(x), POOL),)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.shapes(
    HEADLINES,
    quick=[(2, 6, 8, 41)],
    full=[(60, 16, 128, 628), (60, 128, 16, 157)],
    headline=HEADLINES,
)
def test_glu_pool(
    side_by_side: SideBySide, shape: tuple[int, int, int, int], dtype: torch.dtype, backward: bool
) -> None:
    single = dtype == torch.float32
    side_by_side.compare(
        make_case(shape, dtype, side_by_side.device),
        native,
        lambda *inputs: (ops.glu_pool_reference(*inputs, POOL),),
        {} if single else {"all in bfloat16": all_in_bfloat16},
        backward=backward,
        multiplies=single,
    )


def make_conv_case(shape: tuple[int, int, int, int], device: str) -> Case:
    B, C, F, T = shape
    layout = torch.contiguous_format if device == "cuda" else torch.channels_last
    features, kernel = torch.randn(B, F, T, device=device), torch.randn(C, 3, 3, device=device) / 3
    weight, shift, bias = (torch.randn(size, device=device) for size in ((C, C), (C,), (C,)))
    grad = torch.randn(B, C, F // POOL[0], T // POOL[1], device=device).contiguous(memory_format=layout)
    return Case(
        "conv_glu_pool",
        f"[{B},{C},{F},{T}]",
        (features, kernel, shift, weight / C**0.5, bias),
        bytes_forward=features.nbytes + grad.nbytes,
        tolerance=1e-5,
        differentiated=(0,),
        output_gradients=(grad,),
        bytes_backward=2 * features.nbytes + grad.nbytes,
    )


def native_conv(*inputs: Tensor) -> tuple[Tensor]:
    return (ops.conv_glu_pool(*inputs, POOL, backend="native"),)


def conv_and_native(features: Tensor, kernel: Tensor, shift: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor]:
    x = torch.nn.functional.conv2d(features[:, None], kernel[:, None], shift, padding=1)
    return native(x, weight, bias)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.shapes(HEADLINES[:1], quick=[(2, 6, 8, 41)], full=[(60, 16, 128, 628)], headline=HEADLINES[:1])
def test_conv_glu_pool(side_by_side: SideBySide, shape: tuple[int, int, int, int], backward: bool) -> None:
    side_by_side.compare(
        make_conv_case(shape, side_by_side.device),
        native_conv,
        lambda *inputs: (ops.conv_glu_pool_reference(*inputs, POOL),),
        {"convolution and glu_pool": conv_and_native},
        backward=backward,
        multiplies=True,
    )
