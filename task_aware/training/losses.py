"""The training objectives of the paper and its baseline; functions of tensors that know no models and no training.

Equations are those of Cornell et al., DCASE 2020. Every permutation search is `ops.pit_loss`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from task_aware import ops

MSEDomain = Literal["linear", "linear_normalised", "compressed", "log"]
Reduction = Literal["mean", "sum"]

#: Exponent of the compressed domain: close to loudness, and smooth where the logarithm is not.
COMPRESSION = 0.3

#: Where `smooth_l1_loss` stops being quadratic. The least normal number (also bfloat16's) makes it the absolute
#: difference, gradient 0 at 0, in one pass each way; `l1_loss` writes three arrays.
NOT_SMOOTH = torch.finfo(torch.float32).tiny


def to_domain(mel: Tensor, mixture_mel: Tensor, domain: MSEDomain, *, amin: float = 1e-5) -> Tensor:
    """Maps linear mel `[B, S, F, T]` to the domain in which its squared error is taken.

    Args:
        mel: amplitudes, `[B, S, F, T]`.
        mixture_mel: the mixture's amplitudes, `[B, F, T]`; it sets the scale of `linear_normalised`.
        domain: `linear` (Eq. 2 to the letter), `linear_normalised` (divided by the mixture's RMS, so that a loud
            clip counts no more than a quiet one), `compressed` (`mel ** 0.3`) or `log` (dB / 20).
        amin: smallest amplitude that a power or a logarithm sees.
    """
    if domain == "linear":
        return mel
    if domain == "linear_normalised":
        rms = mixture_mel.square().mean((-2, -1)).sqrt().clamp_min(amin)
        return mel / rms[:, None, None, None]
    if domain == "compressed":
        return mel.clamp_min(amin) ** COMPRESSION
    if domain == "log":
        return torch.log10(mel.clamp_min(amin))
    raise ValueError(f"no MSE domain is called {domain!r}; there are linear, linear_normalised, compressed, log")


def pit_mse(
    estimates: Tensor,
    targets: Tensor,
    mixture_mel: Tensor,
    *,
    domain: MSEDomain = "compressed",
    backend: ops.Backend = "auto",
) -> ops.PITResult:
    """Eq. 2: `min over sigma of MSE(estimates[sigma], targets)`, one permutation per clip.

    Args:
        estimates, targets: linear mel, `[B, S, F, T]`.
        mixture_mel: linear mel of the mixture, `[B, F, T]`.

    Returns:
        Loss `[B]` and the permutation `[B, S]`; `permutation[b, j]` is the estimate of target j.
    """
    return ops.pit_loss(
        to_domain(estimates, mixture_mel, domain),
        to_domain(targets, mixture_mel, domain),
        kind="mse",
        backend=backend,
    )


def anchored_mse(
    estimates: Tensor,
    images: Tensor,
    floor: Tensor,
    labels: Tensor,
    mixture_mel: Tensor,
    *,
    domain: MSEDomain = "compressed",
) -> Tensor:
    """Squared error with a slot for each class, its label modulo S: a start that breaks the symmetry of the slots.

    Args:
        estimates, images: linear mel, `[B, S, F, T]`; images whose classes share a slot are summed.
        floor: what the mask floor adds to each target, `[B, 1, F, T]`.
        labels: the images' classes, `[B, S]`; -1 for an unused row, which must be silent.
        mixture_mel: linear mel of the mixture, `[B, F, T]`.

    Returns:
        Loss `[B]`.
    """
    slots = labels.clamp_min(0) % images.shape[1]
    placed = torch.zeros_like(images).scatter_add_(1, slots[..., None, None].expand_as(images), images)
    difference = to_domain(estimates, mixture_mel, domain) - to_domain(placed + floor, mixture_mel, domain)
    return difference.square().mean((1, 2, 3))


def deep_feature_loss(
    estimated: Sequence[Tensor], oracle: Sequence[Tensor], *, reduction: Reduction = "mean"
) -> Tensor:
    """Eq. 3: the L1 distance of the detector's activations, summed over its layers.

    Args:
        estimated, oracle: activations for reordered estimates and for targets, pairwise of one shape `[B * S, ...]`.
        reduction: within a layer; `sum` is Eq. 3 to the letter (per clip), `mean` keeps layers of any size comparable.

    Returns:
        A scalar, the mean over clips.
    """
    if len(estimated) != len(oracle):
        raise ValueError(f"{len(estimated)} layers of estimates against {len(oracle)} of targets; give the same layers")
    total = torch.zeros((), device=estimated[0].device)
    with torch.autocast(total.device.type, enabled=False):  # it would copy the activations into float32
        for estimate, target in zip(estimated, oracle, strict=True):
            if estimate.dtype == torch.float16:  # of which NOT_SMOOTH is 0, and 0 / 0 the gradient of equal activations
                estimate, target = estimate.float(), target.float()
            distance = torch.nn.functional.smooth_l1_loss(estimate, target, reduction=reduction, beta=NOT_SMOOTH)
            total = total + (distance if reduction == "mean" else distance / len(estimate))
    return total


def binary_cross_entropy(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Mean binary cross-entropy in float32, also within autocast, where torch refuses it on CUDA; shapes are equal."""
    with torch.autocast(probabilities.device.type, enabled=False):
        return torch.nn.functional.binary_cross_entropy(probabilities.float(), labels)


def frame_loss(frame: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of the merged detections of a mixture, which needs no permutation.

    Args:
        frame: the detector's frame probabilities of each source, `[B, S, T', C]`; the largest of the sources counts.
        labels: multi-hot frame labels of the mixture, `[B, T', C]`.

    Returns:
        A scalar, the mean over clips, frames and classes.
    """
    return binary_cross_entropy(frame.amax(1), labels)


def weak_targets(labels: Tensor, n_sources: int) -> tuple[Tensor, Tensor]:
    """Spreads clip labels over sources: one one-hot row per present class, the remaining rows all zero.

    Args:
        labels: multi-hot `[B, C]`.
        n_sources: rows S; of a clip with more classes the first S in label order are kept.

    Returns:
        Targets `[B, S, C]`, and which rows hold a class, bool `[B, S]`.
    """
    n_clips, n_classes = labels.shape
    present = labels > 0.5
    rank = present.cumsum(1) - 1
    kept = present & (rank < n_sources)
    row = torch.arange(n_sources, device=labels.device)[None, :, None]
    targets = (kept[:, None, :] & (rank[:, None, :] == row)).to(labels.dtype)
    return targets, targets.sum(-1) > 0.5


def weak_loss(
    clip: Tensor, labels: Tensor, *, present_rows_only: bool = False, backend: ops.Backend = "auto"
) -> Tensor:
    """Eq. 5: permutation-invariant binary cross-entropy of clip probabilities.

    Args:
        clip: the detector's clip probabilities of each source, `[B, S, C]`.
        labels: multi-hot clip labels `[B, C]`.
        present_rows_only: leave out the all-zero rows, so that silence in the spare sources is not asked for.

    Returns:
        A scalar, the mean over clips.
    """
    targets, rows = weak_targets(labels, clip.shape[1])
    mask = rows if present_rows_only else None
    return ops.pit_loss(clip, targets, kind="bce", mask=mask, backend=backend).loss.mean()


class Consistency(NamedTuple):
    """Eq. 6 per clip: the loss `[B]` and the one permutation `[B, S]` used for frames and clips."""

    loss: Tensor
    permutation: Tensor


def teacher_loss(
    student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor], *, backend: ops.Backend = "auto"
) -> Consistency:
    """Eq. 6: permutation-invariant MSE between what the detector says of student's and teacher's sources.

    `min over sigma of MSE(frame_student[sigma], frame_teacher) + MSE(clip_student[sigma], clip_teacher)`, with one
    permutation for both terms: they are joined into one row per source, weighted so that each keeps its own mean.

    Args:
        student, teacher: (frame `[B, S, T', C]`, clip `[B, S, C]`) probabilities. No gradient reaches the teacher.
    """
    frame_size = student[0][0, 0].numel()
    clip_size = student[1][0, 0].numel()
    total = frame_size + clip_size

    def joined(frame: Tensor, clip: Tensor) -> Tensor:
        weighted = frame.flatten(2) * (total / frame_size) ** 0.5, clip * (total / clip_size) ** 0.5
        return torch.cat(weighted, -1)

    result = ops.pit_loss(joined(*student), joined(*teacher).detach(), kind="mse", backend=backend)
    return Consistency(result.loss, result.permutation)


#: Signals of a smaller root mean square are silent.
SILENCE = 1e-8


def thresholded_snr(
    estimates: Tensor, references: Tensor, mixture: Tensor, *, max_db: float = 30.0, max_silent_db: float = 20.0
) -> Tensor:
    """Negative signal-to-noise ratio in dB, thresholded: the separation baseline's objective (Wisdom et al., 2021).

    `10 log10((|estimate - reference|^2 + tau |r|^2) / |r|^2)` with `tau = 10^(-max / 10)`, so that an estimate gains
    nothing more beyond the threshold. `r` is the reference and `max` is `max_db`; for a silent reference `r` is the
    mixture and `max` is `max_silent_db`.

    Args:
        estimates, references: `[B, S, N]`.
        mixture: `[B, N]`.

    Returns:
        `[B, S]`, from `-max` to about 0 and above.
    """
    silent = references.square().mean(-1).sqrt() <= SILENCE
    power = torch.where(silent, mixture.square().sum(-1)[:, None], references.square().sum(-1)).clamp_min(1e-8)
    tau = torch.where(silent, 10 ** (-max_silent_db / 10), 10 ** (-max_db / 10))
    return 10 * torch.log10((estimates - references).square().sum(-1) / power + tau)


def slot_shares(estimates: Tensor) -> Tensor:
    """Share of energy in each source, largest first, mean over clips: `[B, S, F, T]` -> `[S]`.

    (1, 0, 0, ...) is the collapse to watch: one source holds the whole clean sum, the others are empty.
    """
    energy = estimates.detach().float().square().sum((-2, -1))
    share = energy / energy.sum(-1, keepdim=True).clamp_min(1e-20)
    return share.sort(-1, descending=True).values.mean(0)
