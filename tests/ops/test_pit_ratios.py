"""The kinds snr and si_sdr of pit_loss: values, derivatives, silence, and scales."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from task_aware import ops

RATIOS = ("snr", "si_sdr")
each_ratio = pytest.mark.parametrize("kind", RATIOS)
# In dB: of snr the relative error of float32 sums; bfloat16 inputs are exact in float32.
LOSS_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-5, torch.float64: 1e-10}
# One rounding of the gradient's dtype, and that of its factors.
GRADIENT_TOLERANCE = {torch.float32: 3e-6, torch.bfloat16: 1e-2, torch.float64: 1e-11}
# Of a single sample, si_sdr's residual is rounding (2^-52) beside the floor (2^-23), in the reference too.
ROUNDING_BESIDE_THE_FLOOR = 1e-8


def sample_inputs(device: str, dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Estimates near their targets and far from them; one of everything, odd lengths, two chunks, views, masks."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device, dtype)

    for shape in [(1, 1, 1), (3, 2, 129), (1, 3, 7, 11), (2, 4, 48), (2, 5, 33), (2, 7, 1134), (1, 32, 40), (0, 3, 8)]:
        mask = torch.rand(shape[:2], generator=generator) < 0.6
        targets = random(*shape)
        yield random(*shape), targets, None
        yield (targets + 0.1 * random(*shape)).flip(1), targets, mask.to(device)
    yield random(3, 17, 4).transpose(1, 2), random(3, 4, 34)[..., ::2], None
    yield random(2, 4, 9), random(1, 4, 9).expand(2, 4, 9), None
    yield random(1, 4, 20000), random(1, 4, 20000), None


@each_ratio
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_value_and_gradients_match_the_reference_in_float64(device: str, dtype: torch.dtype, kind: str) -> None:
    for estimates, targets, mask in sample_inputs(device, dtype):
        e, t = estimates.clone().requires_grad_(), targets.clone().requires_grad_()
        loss, permutation = ops.pit_loss(e, t, kind=kind, mask=mask, backend="native")
        wide_e, wide_t = (x.double().clone().requires_grad_() for x in (estimates, targets))
        expected = ops.pit_loss_reference(wide_e, wide_t, kind=kind, mask=mask)

        assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert torch.equal(permutation, expected.permutation)
        torch.testing.assert_close(loss.double(), expected.loss, rtol=1e-6, atol=LOSS_TOLERANCE[dtype])
        weight = torch.arange(1.0, len(loss) + 1, device=device)
        (loss * weight.to(loss)).sum().backward()
        (expected.loss * weight).sum().backward()
        for got, wanted in ((e.grad, wide_e.grad), (t.grad, wide_t.grad)):
            scale = float(wanted.abs().amax()) if wanted.numel() else 0.0
            tolerance = GRADIENT_TOLERANCE[dtype]
            torch.testing.assert_close(
                got.double(), wanted, rtol=tolerance, atol=tolerance * scale + ROUNDING_BESIDE_THE_FLOOR
            )


@each_ratio
def test_values_are_those_of_torchmetrics(device: str, kind: str) -> None:
    audio = pytest.importorskip("torchmetrics.functional.audio")
    ratio = audio.signal_noise_ratio if kind == "snr" else audio.scale_invariant_signal_distortion_ratio
    generator = torch.Generator().manual_seed(0)
    targets = torch.randn(4, 2, 300, generator=generator)
    estimates = (targets + 0.3 * torch.randn(4, 2, 300, generator=generator)) * torch.tensor([1.2, 0.7])[:, None]
    expected = -ratio(estimates, targets).mean(1)
    found = ops.pit_loss(estimates.flip(1).to(device), targets.to(device), kind=kind).loss.cpu()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@each_ratio
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_gradcheck(device: str, kind: str, backend: str) -> None:
    generator = torch.Generator().manual_seed(3)
    estimates, targets = (torch.randn(2, 3, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    mask = torch.tensor([[True, True, True], [True, False, True]], device=device)
    for scale in (1.0, 1e-4):  # at the second one, the floor is as large as the energies
        assert torch.autograd.gradcheck(
            lambda e, t: ops.pit_loss(e, t, kind=kind, mask=mask, backend=backend).loss,
            ((scale * estimates).to(device).requires_grad_(), (scale * targets).to(device).requires_grad_()),
            eps=1e-6 * scale,
            atol=1e-4 / scale,
            rtol=1e-4,
        )


@each_ratio
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_silence_and_perfection_are_finite(device: str, kind: str, backend: str) -> None:
    """A silent estimate of anything costs 0; the louder what is heard in silence, the more it costs."""
    sound = torch.tensor([0.5, -0.5, 0.5, -0.5])
    silence = torch.zeros(4)
    rows = [(silence, silence), (silence, sound), (sound, silence), (2 * sound, silence), (sound, sound)]
    estimates, targets = (torch.stack(x)[:, None].to(device) for x in zip(*rows, strict=True))
    estimates, targets = estimates.requires_grad_(), targets.requires_grad_()
    loss = ops.pit_loss(estimates, targets, kind=kind, backend=backend).loss
    loss.sum().backward()
    floor = 10 * torch.log10(torch.tensor([1.0, 4.0, 1.0]) * 2**23)
    wanted = torch.cat([torch.zeros(2), floor * torch.tensor([1.0, 1.0, -1.0])])
    torch.testing.assert_close(loss.detach().cpu(), wanted, rtol=1e-5, atol=1e-5)
    for x in (estimates, targets):
        assert x.grad is not None and x.grad.isfinite().all()
    assert estimates.grad is not None and not estimates.grad[0].any()
    assert (estimates.grad[2] * sound.to(device) > 0).all()  # a step down makes it quieter


@pytest.mark.parametrize("scale", [0.1, -3.0, 1e3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_si_sdr_of_scaled_estimates(device: str, scale: float, dtype: torch.dtype) -> None:
    """Sums in float32 would be wrong by decibels at 60 dB."""
    generator = torch.Generator().manual_seed(0)
    targets, noise = (torch.randn(1, 3, 5000, generator=generator, dtype=torch.float64) for _ in range(2))
    estimates = (scale * (targets + 1e-3 * noise)).to(dtype)
    targets = targets.to(dtype)
    expected = ops.pit_loss_reference(estimates.double(), targets.double(), kind="si_sdr").loss
    assert -60.5 < float(expected) < -59.5
    found = ops.pit_loss(estimates.to(device), targets.to(device), kind="si_sdr").loss.cpu().double()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@each_ratio
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_infinite_samples(device: str, kind: str, backend: str) -> None:
    """An infinite estimate has an infinite loss, or none; of an infinite target nothing can be said."""
    estimates, targets = torch.randn(3, 2, 9, device=device), torch.randn(3, 2, 9, device=device)
    estimates[0, 1, 2] = torch.inf
    targets[1, 0, 3] = torch.inf
    loss = ops.pit_loss(estimates, targets, kind=kind, backend=backend).loss.cpu()
    assert not loss[0].isfinite() and loss[1].isnan() and loss[2].isfinite()


@pytest.mark.parametrize("kind", [3, 4])
def test_opcheck(device: str, kernels: str, kind: int) -> None:
    checks = ("test_schema", "test_faketensor") if kernels == "emulated" else "ALL"
    generator = torch.Generator().manual_seed(0)
    estimates, targets = (torch.randn(2, 3, 40, generator=generator).to(device) for _ in range(2))
    mask = torch.tensor([[True, False, True], [True, True, True]], device=device)
    for allowed in (None, torch.eye(3, device=device).bool().flip(1).expand(2, 3, 3)):
        arguments = (estimates.requires_grad_(), targets.requires_grad_(), mask, allowed, kind)
        torch.library.opcheck(torch.ops.task_aware.pit_loss.default, arguments, test_utils=checks)
    with torch.no_grad():
        loss, permutation, slopes = torch.ops.task_aware.pit_loss(estimates, targets, mask, None, kind)
    arguments = (loss, loss, estimates.detach(), targets.detach(), permutation, slopes, mask, kind, True, kind == 3)
    torch.library.opcheck(torch.ops.task_aware.pit_loss_backward.default, arguments, test_utils=checks)


@each_ratio
def test_second_derivatives_are_refused(device: str, kind: str) -> None:
    estimates, targets = torch.randn(1, 2, 5, device=device, requires_grad=True), torch.randn(1, 2, 5, device=device)
    (grad,) = torch.autograd.grad(ops.pit_loss(estimates, targets, kind=kind).loss.sum(), estimates, create_graph=True)
    with pytest.raises(NotImplementedError, match="pit_loss: the native kernels have no second derivatives"):
        torch.autograd.grad(grad.sum(), estimates)


def test_does_not_depend_on_the_number_of_threads() -> None:
    estimates, targets = torch.randn(2, 4, 30000), torch.randn(2, 4, 30000)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append(ops.pit_loss(estimates, targets, kind="snr").loss)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*results)
