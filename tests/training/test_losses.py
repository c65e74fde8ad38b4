import itertools

import pytest
import torch

from task_aware.training import losses


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("domain", ["linear", "linear_normalised", "compressed", "log"])
def test_pit_mse_is_the_least_over_all_permutations(domain):
    estimates, targets, mixture = rand(4, 3, 8, 5), rand(4, 3, 8, 5, seed=1), rand(4, 8, 5, seed=2)
    result = losses.pit_mse(estimates, targets, mixture, domain=domain, backend="reference")
    e, t = (losses.to_domain(x, mixture, domain) for x in (estimates, targets))
    every = {p: (e[:, list(p)] - t).square().mean((1, 2, 3)) for p in itertools.permutations(range(3))}
    best = torch.stack(list(every.values())).amin(0)
    torch.testing.assert_close(result.loss, best)
    for clip, permutation in enumerate(result.permutation.tolist()):
        torch.testing.assert_close(every[tuple(permutation)][clip], best[clip])


def test_the_normalised_domain_ignores_the_level():
    estimates, targets, mixture = rand(2, 2, 4, 4), rand(2, 2, 4, 4, seed=1), rand(2, 4, 4, seed=2)
    quiet, loud = (
        losses.pit_mse(g * estimates, g * targets, g * mixture, domain="linear_normalised", backend="reference").loss
        for g in (0.1, 10.0)
    )
    torch.testing.assert_close(quiet, loud)


def test_every_domain_has_a_finite_gradient_at_silence():
    for domain in ("linear", "linear_normalised", "compressed", "log"):
        estimates = torch.zeros(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
        mixture = torch.zeros(1, 4, 4, dtype=torch.float64)
        losses.pit_mse(estimates, rand(1, 2, 4, 4), mixture, domain=domain, backend="reference").loss.sum().backward()
        assert torch.isfinite(estimates.grad).all(), domain


def test_deep_feature_loss_sums_layers():
    a, b = [rand(6, 3, 4), rand(6, 5)], [rand(6, 3, 4, seed=1), rand(6, 5, seed=2)]
    difference = [(x - y).abs() for x, y in zip(a, b, strict=True)]
    torch.testing.assert_close(losses.deep_feature_loss(a, b), sum(x.mean() for x in difference))
    per_clip = sum(x.flatten(1).sum(1) for x in difference).mean()
    torch.testing.assert_close(losses.deep_feature_loss(a, b, reduction="sum"), per_clip)
    with pytest.raises(ValueError, match="2 layers of estimates, but 1 of targets"):
        losses.deep_feature_loss(a, b[:1])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_deep_feature_loss_has_the_gradient_of_absolute_differences(dtype, reduction):
    tiny = losses.NOT_SMOOTH
    a = torch.tensor([[1.0, -2.0, 3.0, 0.0, tiny, -tiny, 3e38, float("inf")]] * 5, dtype=dtype, requires_grad=True)
    b = torch.tensor([1.0, 3.0, -1e-20, 0.0, 0.0, 0.0, -1.0, 1.0], dtype=dtype).expand(5, 8)
    losses.deep_feature_loss([a], [b], reduction=reduction).backward()
    expected = (a.detach() - b).sign() / (a.numel() if reduction == "mean" else len(a))
    assert a.grad is not None
    torch.testing.assert_close(a.grad, expected)


def test_activations_in_half_precision_are_compared_where_the_difference_has_a_gradient(monkeypatch):
    """On CUDA 0 / 0 is the gradient of equal activations where the border of the quadratic part is no number."""
    compared = []

    def smooth_l1_loss(a, b, *, reduction, beta):
        compared.append(a.dtype)
        assert beta >= torch.finfo(a.dtype).tiny and a.dtype == b.dtype
        return (a - b).abs().mean()

    monkeypatch.setattr(torch.nn.functional, "smooth_l1_loss", smooth_l1_loss)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        x = torch.zeros(2, 3, dtype=dtype)
        losses.deep_feature_loss([x], [x])
    assert compared == [torch.float32, torch.bfloat16, torch.float32]


def test_deep_feature_loss_of_half_precision_is_summed_in_float32():
    a = torch.ones(2, 50_000, dtype=torch.float16, requires_grad=True)
    b = torch.zeros_like(a).detach()
    b[:, 0] = 1.0
    loss = losses.deep_feature_loss([a], [b], reduction="sum")
    assert loss.item() == 49_999  # float16 ends at 65,504, and the sum before the mean over clips is twice this
    loss.backward()
    assert a.grad is not None
    torch.testing.assert_close(a.grad, 0.5 * (1 - b))


def test_weak_targets_put_each_class_into_a_row_of_its_own():
    labels = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.float32)
    targets, rows = losses.weak_targets(labels, 3)
    assert targets[0].tolist() == [[0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert targets[1].sum() == 0
    assert targets[2].tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]  # the first three in label order
    assert rows.tolist() == [[True, True, False], [False] * 3, [True] * 3]


def test_weak_loss_is_the_best_assignment_s_cross_entropy():
    clip = rand(2, 3, 4)
    labels = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 0]], dtype=torch.float64)
    targets, _ = losses.weak_targets(labels, 3)
    bce = torch.nn.functional.binary_cross_entropy
    best = [min(bce(clip[b, list(p)], targets[b]) for p in itertools.permutations(range(3))) for b in range(2)]
    torch.testing.assert_close(losses.weak_loss(clip, labels, backend="reference"), torch.stack(best).mean())


def test_weak_loss_of_present_rows_asks_nothing_of_silence():
    labels = torch.tensor([[1, 0]], dtype=torch.float64)
    clip = torch.tensor([[[0.9, 0.1], [0.5, 0.5]]], dtype=torch.float64, requires_grad=True)
    losses.weak_loss(clip, labels, present_rows_only=True, backend="reference").backward()
    assert clip.grad[0, 0].abs().sum() > 0 and clip.grad[0, 1].abs().sum() == 0


def test_teacher_loss_uses_one_permutation_for_frames_and_clips():
    student, teacher = (
        (rand(2, 3, 6, 4), rand(2, 3, 4, seed=1)),
        (rand(2, 3, 6, 4, seed=2), rand(2, 3, 4, seed=3)),
    )
    every = torch.stack(
        [
            (student[0][:, list(p)] - teacher[0]).square().mean((1, 2, 3))
            + (student[1][:, list(p)] - teacher[1]).square().mean((1, 2))
            for p in itertools.permutations(range(3))
        ]
    )
    torch.testing.assert_close(losses.teacher_loss(student, teacher, backend="reference").loss, every.amin(0))


def test_teacher_loss_leaves_the_teacher_alone():
    student = [x.requires_grad_() for x in (rand(1, 2, 3, 4), rand(1, 2, 4, seed=1))]
    teacher = [x.requires_grad_() for x in (rand(1, 2, 3, 4, seed=2), rand(1, 2, 4, seed=3))]
    losses.teacher_loss(tuple(student), tuple(teacher), backend="reference").loss.sum().backward()
    assert all(x.grad is not None for x in student) and all(x.grad is None for x in teacher)


def test_slot_shares_tell_a_denoiser_from_a_separator():
    estimates = torch.zeros(2, 3, 4, 4)
    estimates[:, 1] = 1.0
    assert losses.slot_shares(estimates).tolist() == [1.0, 0.0, 0.0]
    estimates[:, 0] = 1.0
    assert losses.slot_shares(estimates).tolist() == [0.5, 0.5, 0.0]


def test_anchored_mse_gives_each_class_a_slot_of_its_own():
    images = torch.zeros(1, 3, 2, 2, dtype=torch.float64)
    images[0, 0], images[0, 1] = 1.0, 2.0
    labels = torch.tensor([[1, 4, -1]])  # 1 and 4 modulo 3 share slot 1
    mixture, floor = torch.ones(1, 2, 2, dtype=torch.float64), torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64)
    expected = torch.full((1, 3, 2, 2), 0.5, dtype=torch.float64)
    expected[0, 1] = 3.5
    loss = losses.anchored_mse(expected, images, floor, labels, mixture, domain="linear")
    assert float(loss) == 0.0
    swapped = expected[:, [1, 0, 2]]
    assert float(losses.anchored_mse(swapped, images, floor, labels, mixture, domain="linear")) == pytest.approx(6.0)


def test_frame_loss_is_the_cross_entropy_of_the_largest_source():
    frame = torch.tensor([[[[0.2, 0.9]], [[0.6, 0.1]]]])
    labels = torch.tensor([[[1.0, 0.0]]])
    expected = -(torch.tensor(0.6).log() + torch.tensor(0.1).log()) / 2
    torch.testing.assert_close(losses.frame_loss(frame, labels), expected)
