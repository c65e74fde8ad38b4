"""What the kernels cost shared and global memory, and that it grows no further: see counting.h."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from . import (
    test_conv_glu_pool,
    test_depthwise_prelu,
    test_gru_scan,
    test_mask_resynthesis,
    test_mel_mask,
    test_mel_spectrogram,
    test_pit_loss,
    test_reverb_mix,
)
from .conftest import Programs
from .running import Case

F32 = torch.float32
LANES = torch.arange(32)


def mel_mask_backward() -> Case:
    tensors = test_mel_mask.sample_inputs(F32, (1, 2, 64, 128))
    return test_mel_mask.backward(tensors, maximum=torch.full((1, 2), 40.0))  # no element is there


def pit_loss_forward() -> Case:
    item = test_pit_loss.Sources("5 sources", torch.rand(1, 5, 8192), torch.rand(1, 5, 8192))
    return Case(item.name, test_pit_loss.inputs("forward", "mse", item), test_pit_loss.outputs(item))


def pit_loss_backward() -> Case:
    item = test_pit_loss.Sources("5 sources", torch.rand(1, 5, 8192), torch.rand(1, 5, 8192))
    given = {"loss": torch.ones(1), "grad": torch.ones(1), "permutation": torch.arange(5)[None]}
    given |= {"wants_estimates": 1, "wants_targets": 0}
    outputs = {"grad_estimates": (F32, (1, 5, 8192))}
    return Case(item.name, test_pit_loss.inputs("backward", "mse", item) | given, outputs)


def reorder_forward() -> Case:
    inputs = {"operation": "forward", "dtype": "float32", "B": 1, "S": 2, "N": 8192}
    inputs |= {"source": torch.rand(1, 2, 8192), "permutation": torch.tensor([[1, 0]])}
    return Case("2 sources", inputs, {"result": (F32, (1, 2, 8192))})


def glu_pool(operation: str, architecture: int) -> Case:
    C, F, T = 128, 2, 32 if architecture >= 80 else 128
    inputs = {
        "operation": operation,
        "architecture": architecture,
        "dtype": "float32",
        "B": 1,
        "C": C,
        "F": F,
        "T": T,
        "mel": 2,
        "time": 2,
    }
    inputs |= {"x": torch.randn(1, C, F, T), "weight": torch.randn(C, C), "bias": torch.randn(C)}
    inputs |= {"transposed": torch.randn(C, C), "grad": torch.randn(1, C, F // 2, T // 2)}
    shape = (1, C, F // 2, T // 2) if operation == "forward" else (1, C, F, T)
    return Case(operation, inputs, {"out": (F32, shape)})


def conv_glu_pool(operation: str) -> Case:
    inputs = test_conv_glu_pool.sample(1, 16, 8, 512, (2, 2), F32)
    return test_conv_glu_pool.make_case(inputs, (2, 2), operation)[0]


def depthwise_prelu(operation: str) -> Case:
    return test_depthwise_prelu.make_case(test_depthwise_prelu.sample(1, 32, 628, F32), 16, operation)[0]


def gru_scan(operation: str) -> Case:
    return test_gru_scan.make_case(test_gru_scan.sample(1, 32, 1, 128), operation)[0]


def mask_resynthesis(operation: str) -> Case:
    options = {"n_fft": 2048, "hop": 255}
    return test_mask_resynthesis.case(operation, test_mask_resynthesis.sample((1, 1, 128, 2549), 255, F32), options)


# float32 at shapes that fill whole blocks: the program, its case, and of each kernel the most wavefronts of shared
# memory and lines of global memory of a block. `pytest tests/cuda_host/test_counts.py -s` prints what they are now.
LIMITS: dict[str, tuple[str, Callable[[], Case], dict[str, tuple[float, float]]]] = {
    # A block is four frames of 2048 samples.
    "mel_spectrogram": (
        "mel_spectrogram",
        lambda: test_mel_spectrogram.case(torch.randn(1, 15 * 255), {}),
        {"mel_spectrogram_kernel": (2448, 1860)},
    ),
    # Transforms of 16384 values, the largest: a block of mix_kernel has two forward and one inverse.
    "reverb_mix": (
        "reverb_mix",
        lambda: test_reverb_mix.case(test_reverb_mix.sample(F32, (1, 1, 33000, 16000))),
        {"mix_kernel": (18432, 9240), "response_kernel": (6144, 2660)},
    ),
    # A block of sources_kernel has five pairs of frames here, one of the others a pair.
    "mask_resynthesis": (
        "mask_resynthesis",
        lambda: mask_resynthesis("forward"),
        {"envelope_kernel": (0, 212), "spectra_kernel": (1152, 513), "sources_kernel": (7660, 4750)},
    ),
    "mask_resynthesis backward": (
        "mask_resynthesis",
        lambda: mask_resynthesis("backward"),
        {"envelope_kernel": (0, 212), "spectra_kernel": (1152, 513), "mask_gradient_kernel": (1662, 1550)},
    ),
    "mel_mask": (
        "mel_mask",
        lambda: test_mel_mask.forward(test_mel_mask.sample_inputs(F32, (1, 2, 64, 128))),
        {"maximum_kernel": (72, 257), "features_kernel": (0, 585)},
    ),
    "mel_mask backward": ("mel_mask", mel_mask_backward, {"gradient_kernel": (0, 376), "tied_kernel": (16, 30)}),
    "pit_loss": ("pit_loss", pit_loss_forward, {"pair_costs_kernel": (32, 1283), "assignment_kernel": (68, 7)}),
    "pit_loss backward": ("pit_loss", pit_loss_backward, {"backward_kernel": (0, 216)}),
    "reorder": ("reorder", reorder_forward, {"reorder_forward_kernel": (0, 136)}),
    # A block is 128 pools of 2x2, in the backward four times 2 mel bands of 30 frames.
    "conv_glu_pool": ("conv_glu_pool", lambda: conv_glu_pool("forward"), {"conv_glu_pool_kernel": (2062, 234)}),
    "conv_glu_pool backward": (
        "conv_glu_pool",
        lambda: conv_glu_pool("backward"),
        {"conv_glu_pool_backward_kernel": (2702, 316), "conv_glu_pool_join_kernel": (0, 11)},
    ),
    # A block is four rows of 628 frames.
    "depthwise_prelu": ("depthwise_prelu", lambda: depthwise_prelu("forward"), {"depthwise_prelu_kernel": (476, 212)}),
    "depthwise_prelu backward": (
        "depthwise_prelu",
        lambda: depthwise_prelu("backward"),
        {"depthwise_prelu_backward_kernel": (956, 327), "depthwise_prelu_sums_kernel": (15, 5)},
    ),
    "glu_pool": (
        "glu_pool",
        lambda: glu_pool("forward", 90),
        {"fragments_kernel": (0, 48), "glu_pool_mma_kernel": (2816, 1408)},
    ),
    "glu_pool backward": (
        "glu_pool",
        lambda: glu_pool("backward", 90),
        {"fragments_kernel": (0, 40), "glu_pool_mma_backward_kernel": (5120, 3072)},
    ),
    "glu_pool without tensor cores": ("glu_pool", lambda: glu_pool("forward", 75), {"glu_pool_kernel": (12288, 5248)}),
    "glu_pool backward without tensor cores": (
        "glu_pool",
        lambda: glu_pool("backward", 75),
        {"glu_pool_backward_kernel": (27648, 10752)},
    ),
    # A block is an item of 32 frames in one direction with 128 units, or those frames.
    "gru_scan": (
        "gru_scan",
        lambda: gru_scan("forward"),
        {"gru_pack_kernel": (0, 160), "gru_scan_kernel": (10772, 3644)},
    ),
    "gru_scan backward": (
        "gru_scan",
        lambda: gru_scan("backward"),
        {
            "gru_pack_kernel": (0, 352),
            "gru_factors_kernel": (10380, 5768),
            "gru_scan_backward_kernel": (13848, 6768),
        },
    ),
}


@pytest.mark.parametrize("what", LIMITS)
def test_no_kernel_costs_more_than_before(programs: Programs, what: str) -> None:
    program, make_case, limits = LIMITS[what]
    torch.manual_seed(0)
    counts = programs(program, "counts").count(make_case())
    assert set(counts) == set(limits), "every kernel has its limits in LIMITS, and no other"
    for kernel, count in counts.items():
        wavefronts, lines = count.wavefronts / count.blocks, count.lines / count.blocks
        print(
            f"{kernel}: {wavefronts:.0f} wavefronts ({count.least_wavefronts / count.blocks:.0f} without conflicts), "
            f"{lines:.0f} lines ({count.least_lines / count.blocks:.0f} were all side by side), of each of "
            f"{count.blocks} blocks"
        )
        assert wavefronts <= limits[kernel][0] and lines <= limits[kernel][1]


@pytest.mark.parametrize(
    ("what", "bytes", "places", "wavefronts"),
    [
        ("side by side", 4, LANES, 1),
        ("one word for all", 4, 7 * torch.ones(32), 1),
        ("every other word", 4, 2 * LANES, 2),
        ("a column", 4, 32 * LANES, 32),
        ("a padded column", 4, 31 * LANES, 1),
        ("half of the lanes", 4, torch.where(LANES % 2 == 0, LANES * 32, -1), 16),
        ("pairs side by side", 8, LANES, 2),
        ("a column of pairs", 8, 16 * LANES, 32),
        ("fours side by side", 16, LANES, 4),
        ("every other four", 16, 2 * LANES, 8),
    ],
)
def test_bank_conflicts_are_counted(
    programs: Programs, what: str, bytes: int, places: torch.Tensor, wavefronts: int
) -> None:
    inputs = {"operation": "read_shared", "bytes": bytes, "places": places.int()}
    (count,) = programs("accesses", "counts").count(Case(what, inputs, {"data": (F32, (256 * bytes,))})).values()
    active = bytes // 4 if (places >= 0).any() else 0
    assert (count.blocks, count.wavefronts, count.least_wavefronts) == (1, wavefronts, active)


@pytest.mark.parametrize(
    ("what", "bytes", "places", "lines"),
    [
        ("side by side", 4, LANES, 1),
        ("one behind a line's beginning", 4, LANES + 1, 2),
        ("one of each line", 4, 32 * LANES, 32),
        ("fours side by side", 16, LANES, 4),
        ("the same for all", 16, 9 * torch.ones(32), 1),
    ],
)
def test_lines_are_counted(programs: Programs, what: str, bytes: int, places: torch.Tensor, lines: int) -> None:
    inputs = {"operation": "read_global", "bytes": bytes, "places": places.int()}
    (count,) = programs("accesses", "counts").count(Case(what, inputs, {"data": (F32, (256 * bytes,))})).values()
    # `places` itself is read once to compare it and once to use it.
    assert count.lines == lines + 2
