"""`python -m benchmarks.profile_operators`: runs the operators at the benchmarks' shapes under a profiler.

Each operator runs forward and backward, twice. Only the second run, with kernels loaded and memory allocated, is
between cudaProfilerStart and cudaProfilerStop, so `ncu --profile-from-start off` profiles only that one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch

from task_aware.ops import _extension

from . import (
    test_depthwise_prelu,
    test_glu_pool,
    test_gru,
    test_mask_resynthesis,
    test_mel_mask,
    test_mel_spectrogram,
    test_pit_loss,
    test_reverb_mix,
)
from .side_by_side import Case, Implementation, prepare


def glu_pool(number: int, dtype: torch.dtype, device: str) -> tuple[Case, Implementation]:
    return test_glu_pool.make_case(test_glu_pool.HEADLINES[number], dtype, device), test_glu_pool.native


#: For each name, a function that returns a case and the native operator for a device.
OPERATORS: dict[str, Callable[[str], tuple[Case, Implementation]]] = {
    "pit_loss": lambda device: (
        test_pit_loss.make_case(test_pit_loss.HEADLINE, device),
        test_pit_loss.native(test_pit_loss.HEADLINE),
    ),
    "reorder": lambda device: (
        test_pit_loss.make_reorder_case(test_pit_loss.ROWS, device),
        test_pit_loss.native_reorder,
    ),
    "mel_mask": lambda device: (test_mel_mask.make_case(test_mel_mask.HEADLINE, device), test_mel_mask.native),
    "reverb_mix": lambda device: (
        test_reverb_mix.make_case(test_reverb_mix.HEADLINE, device),
        test_reverb_mix.native,
    ),
    "mel_spectrogram": lambda device: (
        test_mel_spectrogram.make_case(test_mel_spectrogram.HEADLINE, device),
        test_mel_spectrogram.native,
    ),
    "mask_resynthesis": lambda device: (
        test_mask_resynthesis.make_case(test_mask_resynthesis.HEADLINE, device),
        test_mask_resynthesis.native,
    ),
    "depthwise_prelu": lambda device: (
        test_depthwise_prelu.make_case(test_depthwise_prelu.HEADLINE, device),
        test_depthwise_prelu.native(test_depthwise_prelu.HEADLINE[3]),
    ),
    "conv_glu_pool": lambda device: (
        test_glu_pool.make_conv_case(test_glu_pool.HEADLINES[0], device),
        test_glu_pool.native_conv,
    ),
    "gru": lambda device: (
        test_gru.make_case(test_gru.HEADLINE, device),
        test_gru.native(test_gru.make_layers(test_gru.HEADLINE, device)),
    ),
    "glu_pool": lambda device: glu_pool(0, torch.float32, device),
    "glu_pool_bfloat16": lambda device: glu_pool(0, torch.bfloat16, device),
    "glu_pool_128": lambda device: glu_pool(1, torch.float32, device),
    "glu_pool_128_bfloat16": lambda device: glu_pool(1, torch.bfloat16, device),
}


def run_twice(name: str, device: str) -> str:
    """Runs an operator twice, the second time for the profiler; returns its name and shape."""
    case, native = OPERATORS[name](device)
    run = prepare(case, native, backward=True)
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    run()
    synchronize()
    with torch.cuda.profiler.profile() if device == "cuda" else nullcontext():
        run()
        synchronize()
    return f"{name} {case.shape}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile_operators", description=__doc__)
    parser.add_argument(
        "operators", nargs="*", metavar="OPERATOR", help=f"operators to run: {', '.join(OPERATORS)}; default: all"
    )
    parser.add_argument(
        "--device", choices=["cuda", "cpu"], default="cuda", help="cpu only checks that everything runs; default: cuda"
    )
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.operators if name not in OPERATORS]:
        parser.error(f"there is no operator {unknown[0]}; choose from {', '.join(OPERATORS)}")
    extension = _extension.extension
    absent = extension.cpu_absent if options.device == "cpu" else extension.cuda_absent
    if options.device == "cuda" and not torch.cuda.is_available():
        absent = "there is no GPU; use --device cpu to check that everything runs"
    if absent:
        sys.exit(f"nothing to profile on {options.device}: {absent}")
    torch.manual_seed(0)
    for name in options.operators or OPERATORS:
        print(run_twice(name, options.device), flush=True)


if __name__ == "__main__":
    main()
