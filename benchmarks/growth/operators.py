"""How operators grow: `pit_loss` with sources, `mel_mask` with the batch, `reverb_mix` with the length of rooms."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from benchmarks import side_by_side, test_mel_mask, test_pit_loss, test_reverb_mix
from benchmarks.side_by_side import Implementation, Outputs, Settings, peer, prepare
from task_aware import ops

from .growing import NATIVE, Case, Part

REFERENCE = "PyTorch (the package's reference)"
COMPILED = "torch.compile"
COMPILED_SEARCH = "torch.compile of an exhaustive search"

#: Sources up to which all permutations are listed; 10! would take gigabytes.
MOST_LISTED = 8


def case_of(
    case: side_by_side.Case,
    native: Implementation,
    reference: Implementation,
    peers: Mapping[str, Implementation],
    without: frozenset[str],
    *,
    backward: bool,
) -> Case:
    """A case for float32, checked against the reference in float64."""
    functions = {NATIVE: native, REFERENCE: reference, **peers}
    runs = {
        name: prepare(case, function, backward=backward) for name, function in functions.items() if name not in without
    }
    expected = prepare(case, reference, backward=backward, dtype=torch.float64)()
    return Case(runs, expected, case.tolerance)


def sources(size: float, without: frozenset[str]) -> Case:
    """`pit_loss` of four items, forward and backward."""
    torch.manual_seed(0)
    S = int(size)
    shape = test_pit_loss.Shape((4, S, 64, 250))
    all_peers = test_pit_loss.make_peers(shape, Settings(), "cpu")
    peers = {name: run for name, run in all_peers.items() if "pw_pt" in name or "torchmetrics" in name}
    if not {COMPILED, COMPILED_SEARCH} & without and S <= MOST_LISTED:
        peers[COMPILED_SEARCH] = side_by_side.compiled(test_pit_loss.exhaustive_form("mse", S, "cpu"))
    return case_of(
        test_pit_loss.make_case(shape, "cpu"),
        test_pit_loss.native(shape),
        lambda e, t: ops.pit_loss_reference(e, t, kind="mse"),
        peers,
        without,
        backward=True,
    )


class Compiled:
    """A function that torch.compile compiles once, for all sizes."""

    def __init__(self, function: Implementation) -> None:
        torch.compiler.reset()
        self.function: Callable[..., Outputs] = torch.compile(function, dynamic=True)

    def __call__(self, *inputs: Tensor | None) -> Outputs:
        return tuple(self.function(*inputs))


class Masks:
    """`mel_mask` of five sources of five seconds, forward and backward."""

    def __init__(self) -> None:
        self.compiled: Compiled | None = None

    def __call__(self, size: float, without: frozenset[str]) -> Case:
        def reference(*inputs: Tensor) -> ops.MaskedMel:
            return ops.mel_mask_reference(*inputs, floor=test_mel_mask.MASK_FLOOR)

        torch.manual_seed(0)
        if self.compiled is None and COMPILED not in without:
            self.compiled = Compiled(reference)
        peers = {COMPILED: self.compiled} if self.compiled else {}
        case = test_mel_mask.make_case((int(size), 5, 64, 250), "cpu")
        return case_of(case, test_mel_mask.native, reference, peers, without, backward=True)


def room_simulator(responses: Tensor) -> Implementation | None:
    """pyroomacoustics' simulation with given responses, if it is installed."""
    rooms = peer("pyroomacoustics")
    if rooms is None:
        return None

    def simulate(sources: Tensor, rirs: Tensor, gains: Tensor, background: Tensor) -> ops.Mixture:
        wet = []
        for clip, its_rirs in zip(sources.numpy(), rirs.numpy(), strict=True):
            room = rooms.ShoeBox([5.0, 4.0, 3.0], fs=16000)
            for signal in clip:
                room.add_source([1.0, 1.0, 1.0], signal=signal)
            room.add_microphone([3.0, 2.0, 1.5])
            room.rir = [[*its_rirs]]
            wet.append(room.simulate(return_premix=True)[:, 0, : clip.shape[-1]])
        return test_reverb_mix.mix(torch.from_numpy(np.stack(wet)).float(), gains, background)

    return simulate


def rooms(size: float, without: frozenset[str]) -> Case:
    """`reverb_mix` of five sources of ten seconds in two clips."""
    torch.manual_seed(0)
    shape = test_reverb_mix.Shape(2, 5, 160_000, math.ceil(16_000 * size))
    case = test_reverb_mix.make_case(shape, "cpu")
    peers = test_reverb_mix.make_peers("cpu", backward=False)
    peers.pop("torch-audiomentations", None)
    assert case.inputs[1] is not None
    if simulate := room_simulator(case.inputs[1]):
        peers["pyroomacoustics"] = simulate
    reference = ops.reverb_mix_reference
    return case_of(case, test_reverb_mix.native, reference, peers, without, backward=False)


def parts() -> list[Part]:
    return [
        Part("sources", "pit_loss [4, S, 64, 250], forward and backward", "sources S", (1, 2, 4, 8, 16, 32), (2, 9),
             sources),
        Part("batch", "mel_mask [B, 5, 64, 250], forward and backward", "batch B", (1, 2, 4, 8, 16, 32, 64), (2,),
             Masks()),
        Part("rooms", "reverb_mix, two clips of ten seconds, five sources", "length of the responses, s",
             (0.0625, 0.125, 0.25, 0.5, 1, 2, 4), (0.0625,), rooms),
    ]  # fmt: skip


def absent() -> list[str]:
    """What is not installed to compare with, in sentences."""
    names = {"asteroid": "Asteroid", "torchmetrics": "torchmetrics", "pyroomacoustics": "pyroomacoustics"}
    return [f"{name} is not installed, and not compared." for module, name in names.items() if not installed(module)]


def installed(module: str) -> bool:
    return peer("asteroid.losses" if module == "asteroid" else module) is not None


def versions() -> dict[str, str]:
    """The versions of what is compared."""
    found = {}
    for name in ("torch", "torchaudio", "torchmetrics", "asteroid", "scipy", "pyroomacoustics"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
