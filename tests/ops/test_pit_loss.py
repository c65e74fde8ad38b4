"""pit_loss against its definition in float64, and in the corners of its contract; its choice: test_pit_search.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from task_aware import ops

KINDS = ("mse", "l1", "bce")
# float32 sums of 512 elements at most (CPU) or 16 (CUDA), then float64: a few 1e-7; bfloat16 inputs are
# exact in float32.
LOSS_TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 1e-6, torch.float64: 1e-12}
# One rounding of the gradient's dtype, and for bce the quotient by e(1-e).
GRADIENT_TOLERANCE = {torch.float32: 3e-6, torch.bfloat16: 1e-2, torch.float64: 1e-12}


def sample_inputs(device: str, dtype: torch.dtype = torch.float32) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Estimates, targets and masks in [0,1]: odd lengths, one of everything, empty batches, views, masks."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator).to(device, dtype)

    for shape in [
        (1, 1, 1),
        (2, 5, 1),
        (3, 2, 129),
        (1, 3, 7, 11),
        (2, 7, 1134),
        (2, 9, 65),
        (1, 32, 40),
        (4, 3),
        (0, 3, 8),
    ]:
        mask = torch.rand(shape[:2], generator=generator) < 0.6
        yield random(*shape), random(*shape), None
        yield random(*shape), random(*shape), mask.to(device)
    yield random(3, 17, 4).transpose(1, 2), random(3, 4, 34)[..., ::2], None
    yield random(2, 4, 9), random(1, 4, 9).expand(2, 4, 9), None
    yield random(1, 5, 20000), random(1, 5, 20000), None


def in_float64(estimates: Tensor, targets: Tensor, kind: str, mask: Tensor | None) -> ops.PITResult:
    return ops.pit_loss_reference(estimates.double(), targets.double(), kind=kind, mask=mask)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_value_and_gradients_match_the_reference_in_float64(device: str, dtype: torch.dtype, kind: str) -> None:
    for estimates, targets, mask in sample_inputs(device, dtype):
        e, t = estimates.clone().requires_grad_(), targets.clone().requires_grad_()
        loss, permutation = ops.pit_loss(e, t, kind=kind, mask=mask, backend="native")
        wide_e, wide_t = estimates.double().requires_grad_(), targets.double().requires_grad_()
        expected = in_float64(wide_e, wide_t, kind, mask)

        assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert torch.equal(permutation, expected.permutation)
        torch.testing.assert_close(loss.double(), expected.loss, rtol=LOSS_TOLERANCE[dtype], atol=0)
        weight = torch.arange(1.0, len(loss) + 1, device=device)
        (loss * weight.to(loss)).sum().backward()
        (expected.loss * weight).sum().backward()
        for got, wanted in ((e.grad, wide_e.grad), (t.grad, wide_t.grad)):
            scale = float(wanted.abs().amax()) if wanted.numel() else 0.0
            torch.testing.assert_close(
                got.double(),
                wanted,
                rtol=GRADIENT_TOLERANCE[dtype],
                atol=GRADIENT_TOLERANCE[dtype] * 1e-2 * scale,
            )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gradients_too_large_for_the_caches(device: str, dtype: torch.dtype, kind: str) -> None:
    """Written past the caches on the CPU; odd rows begin at any address."""
    generator = torch.Generator().manual_seed(2)
    estimates, targets = (torch.rand(1, 3, 1_900_003, generator=generator).to(device, dtype) for _ in range(2))
    mask = torch.tensor([[True, True, False]], device=device)
    e, t = estimates.clone().requires_grad_(), targets.clone().requires_grad_()
    wide_e, wide_t = estimates.double().requires_grad_(), targets.double().requires_grad_()
    ops.pit_loss(e, t, kind=kind, mask=mask, backend="native").loss.sum().backward()
    in_float64(wide_e, wide_t, kind, mask).loss.sum().backward()
    for got, wanted in ((e.grad, wide_e.grad), (t.grad, wide_t.grad)):
        tolerance = GRADIENT_TOLERANCE[dtype]
        torch.testing.assert_close(
            got.double(), wanted, rtol=tolerance, atol=tolerance * 1e-2 * float(wanted.abs().amax())
        )


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_bce_at_zero_and_one_is_clamped_as_in_torch(device: str, backend: str) -> None:
    estimates = torch.tensor([[[0.0, 1.0, 0.0, 1.0]]], device=device, requires_grad=True)
    plain = estimates.detach().clone().requires_grad_()
    targets = torch.tensor([[[0.0, 1.0, 1.0, 0.0]]], device=device)
    result = ops.pit_loss(estimates, targets, kind="bce", backend=backend)
    expected = torch.nn.functional.binary_cross_entropy(plain, targets)
    assert result.loss.tolist() == [expected.item()] == [50.0]
    result.loss.sum().backward()
    expected.backward()
    torch.testing.assert_close(estimates.grad, plain.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bce_of_probabilities_near_zero_and_one(device: str, dtype: torch.dtype) -> None:
    """Down to the smallest number, and up to the last one before 1; each row alone shows its relative error."""
    probabilities = [2.0**-k for k in range(1, 149)] + [1 - 2.0**-k for k in range(1, 25)]
    estimates = torch.tensor(probabilities, dtype=dtype, device=device).reshape(-1, 1, 1)
    for target in (0.0, 1.0, 0.3):
        targets = torch.full_like(estimates, target)
        loss = ops.pit_loss(estimates, targets, kind="bce", backend="native").loss
        expected = in_float64(estimates, targets, "bce", None).loss
        torch.testing.assert_close(loss.double(), expected, rtol=LOSS_TOLERANCE[dtype], atol=0)


@pytest.mark.parametrize("value", [-0.25, 1.25, float("nan"), float("inf")])
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_bce_of_what_is_no_probability_is_nan(device: str, value: float, backend: str) -> None:
    estimates, targets = torch.full((2, 1, 5), 0.5, device=device), torch.full((2, 1, 5), 0.5, device=device)
    estimates[1, 0, 3] = value
    loss = ops.pit_loss(estimates, targets, kind="bce", backend=backend).loss
    assert loss.isnan().tolist() == [False, True]


def test_estimates_and_targets_of_two_dtypes_use_the_wider(device: str) -> None:
    estimates = torch.rand(2, 3, 8, device=device, dtype=torch.bfloat16, requires_grad=True)
    targets = torch.rand(2, 3, 8, device=device)
    result = ops.pit_loss(estimates, targets)
    assert torch.equal(result.loss, ops.pit_loss(estimates.float(), targets).loss)
    result.loss.sum().backward()
    assert estimates.grad.dtype == torch.bfloat16


def test_does_not_depend_on_the_number_of_threads() -> None:
    estimates, targets = torch.rand(2, 5, 30000), torch.rand(2, 5, 30000)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append(ops.pit_loss(estimates, targets).loss)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*results)


@pytest.mark.parametrize("kind", range(3))
def test_opcheck(device: str, kernels: str, kind: int) -> None:
    # The slow rest is of the Python side, the same as on the CPU.
    checks = ("test_schema", "test_faketensor") if kernels == "emulated" else "ALL"
    for estimates, targets, mask in sample_inputs(device):
        if estimates.numel() > 5000:
            continue
        arguments = (estimates.detach().requires_grad_(), targets.detach().requires_grad_(), mask, None, kind)
        torch.library.opcheck(torch.ops.task_aware.pit_loss.default, arguments, test_utils=checks)
        loss, permutation, slopes = torch.ops.task_aware.pit_loss(estimates, targets, mask, None, kind)
        torch.library.opcheck(
            torch.ops.task_aware.pit_loss_backward.default,
            (loss, loss, estimates, targets, permutation, slopes, mask, kind, True, kind == 0),
            test_utils=checks,
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_gradcheck(device: str, kind: str, backend: str) -> None:
    generator = torch.Generator().manual_seed(3)
    estimates, targets = (torch.rand(2, 3, 5, generator=generator, dtype=torch.float64) * 0.8 + 0.1 for _ in range(2))
    mask = torch.tensor([[True, True, True], [True, False, True]], device=device)
    assert torch.autograd.gradcheck(
        lambda e, t: ops.pit_loss(e, t, kind=kind, mask=mask, backend=backend).loss,
        (estimates.to(device).requires_grad_(), targets.to(device).requires_grad_()),
    )


def test_compiles_into_one_graph(device: str) -> None:
    estimates = torch.rand(2, 3, 64, device=device, requires_grad=True)
    targets = torch.rand(2, 3, 64, device=device)

    def step(e: Tensor, t: Tensor) -> Tensor:
        loss, permutation = ops.pit_loss(e, t)
        return loss.sum() + ops.reorder(e, permutation)[:, 0].sum()

    torch.compile(step, fullgraph=True, backend="aot_eager")(estimates, targets).backward()
    compiled_gradient, estimates.grad = estimates.grad, None
    step(estimates, targets).backward()
    assert torch.equal(compiled_gradient, estimates.grad)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")
def test_is_captured_in_a_cuda_graph_without_synchronising() -> None:
    estimates = torch.rand(4, 5, 5000, device="cuda", requires_grad=True)
    targets = torch.rand(4, 5, 5000, device="cuda")

    def step() -> tuple[Tensor, Tensor]:
        loss, permutation = ops.pit_loss(estimates, targets)
        (gradient,) = torch.autograd.grad(loss.sum() + ops.reorder(estimates, permutation)[:, 0].sum(), estimates)
        return loss, gradient

    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    targets.copy_(torch.rand_like(targets))
    graph.replay()
    for replayed, eager in zip(captured, step(), strict=True):
        assert torch.equal(replayed, eager)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"targets": torch.zeros(2, 3, 5)},
            ValueError,
            r"targets is \[2,3,5\], expected the estimates' shape = \[2,3,4\]",
        ),
        ({"estimates": torch.zeros(4)}, ValueError, r"estimates is \[4\], expected \[B,S,\*\]"),
        (
            {"estimates": torch.zeros(1, 33, 2), "targets": torch.zeros(1, 33, 2)},
            ValueError,
            "expected S from 1 to 32",
        ),
        (
            {"estimates": torch.zeros(1, 2, 0), "targets": torch.zeros(1, 2, 0)},
            ValueError,
            "at least one element",
        ),
        ({"kind": "sdr"}, ValueError, "kind is 'sdr', expected one of mse, l1, bce, snr, si_sdr"),
        ({"mask": torch.ones(2, 3)}, TypeError, "mask is torch.float32, expected torch.bool"),
        (
            {"mask": torch.ones(2, 4, dtype=torch.bool)},
            ValueError,
            r"mask is \[2,4\], expected \[B,S\] = \[2,3\]",
        ),
        ({"estimates": torch.zeros(2, 3, 4, dtype=torch.float16)}, TypeError, "estimates is torch.float16"),
        ({"targets": torch.zeros(2, 3, 4, device="meta")}, ValueError, "expected one device"),
        ({"backend": "fast"}, ValueError, "backend is 'fast'"),
    ],
)
def test_wrong_arguments(change: dict, error: type[Exception], message: str) -> None:
    arguments = {
        "estimates": torch.zeros(2, 3, 4),
        "targets": torch.zeros(2, 3, 4),
        "backend": "reference",
    } | change
    with pytest.raises(error, match=message):
        ops.pit_loss(**arguments)
