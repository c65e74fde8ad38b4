"""The kernels of reverb_mix.cuh, run on the host."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from task_aware.ops._tables import fft_roots
from task_aware.ops.reverb_mix import _CUDA_TRANSFORMS

from .conftest import Programs, every_build
from .running import Case, check, dtype_name

# (B, S, N, L): one of everything, odd and prime lengths, a response longer than the clip (its rows are further
# apart than what is read of them), transforms of every size, several parts of a response, no sources.
SHAPES = [
    *((1, 1, 1, 1), (2, 3, 1000, 100), (1, 2, 977, 33), (2, 2, 50, 90), (1, 3, 7, 1), (1, 2, 3001, 700)),
    *((1, 1, 2600, 1300), (1, 1, 12289, 4099), (2, 0, 30, 3)),
]
# Shared memory of a block, in bytes: of an H100, and what leaves the smaller transforms alone.
SHARED = 232448
SMALLER = [72000, 40000, 12000]
# Relative to the loudest sample: one FFT forth and back.
TOLERANCE = {torch.float32: 1e-6, torch.float64: 4e-15}


def sample(dtype: torch.dtype, shape: tuple[int, ...]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(sum(shape))
    B, S, N, L = shape
    tensors = {
        "sources": torch.randn((B, S, N), generator=generator),
        "rirs": torch.randn((B, S, L), generator=generator) * torch.exp(-5 * torch.arange(L) / L),
        "gains": torch.randn((B, S), generator=generator),
        "background": torch.randn((B, N), generator=generator),
    }
    return {name: tensor.to(dtype) for name, tensor in tensors.items()}


def direct(tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The definition in float64: images and mixture."""
    sources, rirs, gains = (tensors[name].double().numpy() for name in ("sources", "rirs", "gains"))
    images = np.zeros_like(sources)
    for b, s in np.ndindex(sources.shape[:2]):
        images[b, s] = gains[b, s] * np.convolve(sources[b, s], rirs[b, s])[: sources.shape[2]]
    mixture = images.sum(1)
    if "background" in tensors:
        mixture += tensors["background"].double().numpy()
    return torch.from_numpy(images), torch.from_numpy(mixture)


def largest(*tensors: Tensor) -> float:
    return max(float(x.abs().max()) if x.numel() else 0.0 for x in tensors)


def case(tensors: dict[str, Tensor], name: str = "", *, shared: int = SHARED, alone: bool = False) -> Case:
    B, S, N = tensors["sources"].shape
    L, dtype = tensors["rirs"].shape[2], tensors["sources"].dtype
    sizes = {"B": B, "S": S, "N": N, "L": L, "shared_bytes": shared, "alone": int(alone), "dtype": dtype_name(dtype)}
    roots = fft_roots(_CUDA_TRANSFORMS[dtype], dtype, torch.device("cpu"))
    outputs = {"mixture": (dtype, (B, N))} | ({} if alone else {"images": (dtype, (B, S, N))})
    return Case(f"{(B, S, N, L)} {name}", sizes | tensors | {"roots": roots}, outputs)


@every_build(list(TOLERANCE))
def test_kernels(programs: Programs, build: str, dtype: torch.dtype) -> None:
    samples = [sample(dtype, shape) for shape in SHAPES]
    quiet = sample(dtype, (2, 2, 300, 20))
    quiet["gains"][0, 1] = 0
    del quiet["background"]
    samples.append(quiet)
    cases = [case(tensors) for tensors in samples]
    results = programs("reverb_mix", build).run(cases, schedules=2 if build == "plain" else 1)
    for item, result, tensors in zip(cases, results, samples, strict=True):
        images, mixture = direct(tensors)
        check(item.name, result["images"], images, TOLERANCE[dtype])
        check(item.name, result["mixture"], mixture, TOLERANCE[dtype], scale=largest(images, mixture))
        assert not result["images"][tensors["gains"] == 0].any()


def test_transforms_of_every_size(programs: Programs, build: str) -> None:
    """An H100 takes the largest for these; less shared memory leaves the smaller ones, with more parts."""
    tensors = sample(torch.float32, (1, 2, 20011, 9001))
    tensors["sources"][0, 1, 3000:] = 0
    cases = [case(tensors, f"{shared} bytes", shared=shared) for shared in (SHARED, *SMALLER)]
    images, mixture = direct(tensors)
    for item, result in zip(cases, programs("reverb_mix", build).run(cases), strict=True):
        check(item.name, result["images"], images, TOLERANCE[torch.float32])
        check(item.name, result["mixture"], mixture, TOLERANCE[torch.float32], scale=largest(images, mixture))
        rms = (result["images"].double() - images).square().mean().sqrt() / images.square().mean().sqrt()
        assert rms < 3e-7


def test_a_silent_stretch_beside_a_loud_one_is_exactly_silent(programs: Programs, build: str) -> None:
    """Two stretches of a clip share a transform, as its real and its imaginary part."""
    tensors = sample(torch.float32, (1, 2, 4096, 30))
    tensors["sources"][0, 0, 2048:] = 0
    tensors["sources"][0, 1, :2048] = 0
    (together,) = programs("reverb_mix", build).run([case(tensors, "silence", shared=12000)])
    check("images", together["images"], direct(tensors)[0], TOLERANCE[torch.float32])
    assert not together["images"][0, 0, 2048 + 512 :].any() and not together["images"][0, 1, :2048].any()
    tensors["sources"].zero_()[0, 0, :500] = 1
    (alone,) = programs("reverb_mix", build).run([case(tensors, "silence, alone", shared=12000, alone=True)])
    assert torch.equal(alone["mixture"][:, 1536:], tensors["background"][:, 1536:])


def test_mixture_alone(programs: Programs, build: str) -> None:
    samples = [sample(torch.float32, shape) for shape in SHAPES]
    samples[3]["gains"][0, 0] = 0
    samples[4]["sources"].zero_()
    cases = [case(tensors, "alone", alone=True) for tensors in samples]
    for item, result, tensors in zip(cases, programs("reverb_mix", build).run(cases), samples, strict=True):
        images, mixture = direct(tensors)
        check(item.name, result["mixture"], mixture, TOLERANCE[torch.float32], scale=largest(images, mixture))


def test_nan_spoils_its_image_and_the_mixture(programs: Programs, build: str) -> None:
    tensors = sample(torch.float32, (2, 2, 300, 20))
    tensors["sources"][0, 1, 100] = torch.nan
    (result,) = programs("reverb_mix", build).run([case(tensors, "NaN")])
    assert result["images"].isnan().flatten(2).any(2).tolist() == [[False, True], [False, False]]
    assert result["images"][0, 1, 100:120].isnan().all() and result["mixture"][0, 100:120].isnan().all()
    assert not result["mixture"][1].isnan().any()
