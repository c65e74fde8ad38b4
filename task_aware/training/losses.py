"""The losses of the paper and of its baseline, as functions of tensors, independent of models and training.

Equations are those of Cornell et al., DCASE 2020. All permutation searches are done by `ops.pit_loss`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from task_aware import ops
from task_aware.training.config import MSEDomain, Reduction

#: Exponent of the compressed domain: close to loudness, and smooth where the logarithm is not.
COMPRESSION = 0.3

#: Below this difference `smooth_l1_loss` is quadratic. With the smallest normal number (of bfloat16 too), it is the
#: absolute difference with gradient 0 at 0, in one pass forward and backward, where `l1_loss` writes three arrays.
NOT_SMOOTH = torch.finfo(torch.float32).tiny


def to_domain(mel: Tensor, mixture_mel: Tensor, domain: MSEDomain, *, amin: float = 1e-5) -> Tensor:
    """Maps linear mel `[B, S, F, T]` to the domain in which the squared error is computed.

    Args:
        mel: amplitudes, `[B, S, F, T]`.
        mixture_mel: the mixture's amplitudes, `[B, F, T]`, which set the scale of `linear_normalised`.
        domain: `linear` (Eq. 2 to the letter), `linear_normalised` (divided by the mixture's RMS, so that loud and
            quiet clips have the same weight), `compressed` (`mel ** 0.3`) or `log` (dB / 20).
        amin: lower bound of the amplitude before a power or logarithm.
    """
    if domain == "linear":
        return mel
    if domain == "linear_normalised":
        rms = mixture_mel.square().mean((-2, -1)).sqrt().clamp_min(amin)
        return mel / rms[:, None, None, None]
    if domain == "compressed":
        return (COMPRESSION * mel.clamp_min(amin).log()).exp()  # half as long as pow, which is exact to a bit more
    if domain == "log":
        return torch.log10(mel.clamp_min(amin))
    raise ValueError(f"domain is {domain!r}; choose from linear, linear_normalised, compressed and log")


def squared_error(estimates: Tensor, targets: Tensor, mixture_mel: Tensor, *, domain: MSEDomain) -> Tensor:
    """Mean squared error `[B]` in `domain` of sources whose order is known, linear mel `[B, S, F, T]` both."""
    difference = to_domain(estimates, mixture_mel, domain) - to_domain(targets, mixture_mel, domain)
    return difference.square().mean((1, 2, 3))


def pit_mse(
    estimates: Tensor,
    targets: Tensor,
    mixture_mel: Tensor,
    *,
    domain: MSEDomain = "compressed",
    allowed: Tensor | None = None,
    backend: ops.Backend = "auto",
) -> ops.PITResult:
    """Eq. 2: `min over sigma of MSE(estimates[sigma], targets)`, one permutation per clip.

    Args:
        estimates, targets: linear mel, `[B, S, F, T]`.
        mixture_mel: linear mel of the mixture, `[B, F, T]`.
        allowed: which estimates (last dimension) each target may have, bool `[B, S, S]`; None: all.

    Returns:
        Loss `[B]` and the permutation `[B, S]`; `permutation[b, j]` is the estimate of target j.
    """
    return ops.pit_loss(
        to_domain(estimates, mixture_mel, domain),
        to_domain(targets, mixture_mel, domain),
        kind="mse",
        allowed=allowed,
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
    """Squared error with a fixed slot for each class (its label modulo S), which breaks the symmetry of the slots.

    Args:
        estimates, images: linear mel, `[B, S, F, T]`. Images whose classes share a slot are summed.
        floor: the share of the mixture that the mask floor adds to each target, `[B, 1, F, T]`.
        labels: the images' classes, `[B, S]`; -1 for an unused row, which must be silent.
        mixture_mel: linear mel of the mixture, `[B, F, T]`.

    Returns:
        Loss `[B]`.
    """
    slots = labels.clamp_min(0) % images.shape[1]
    placed = torch.zeros_like(images).scatter_add_(1, slots[..., None, None].expand_as(images), images)
    return squared_error(estimates, placed + floor, mixture_mel, domain=domain)


def class_images(images: Tensor, labels: Tensor, asked: Tensor, *, slots: int = 1) -> Tensor:
    """The images of each asked class, silence for classes that are absent and for slots that are left.

    Args:
        images: linear mel, `[B, S, F, T]`.
        labels: the images' classes, `[B, S]`; -1 for an unused row.
        asked: classes, `[B, K]`.
        slots: number of images for each class. The last is the sum of what the others leave; of one, it is that of all.

    Returns:
        `[B, K * slots, F, T]`.
    """
    before = (labels[:, :, None] == labels[:, None]).tril(-1).sum(2)  # rows of the same class
    slot = torch.arange(slots, device=labels.device)[:, None] == before[:, None].clamp_max(slots - 1)
    match = (asked[:, :, None] == labels[:, None])[:, :, None] & slot[:, None]
    return torch.einsum("bks,bsft->bkft", match.flatten(1, 2).to(images.dtype), images)


def interchangeable(labels: Tensor, asked: Tensor, slots: int) -> Tensor:
    """Which sources may stand for which images of `class_images`: those of one class, if it has several images.

    A single image belongs to the first slot. So the others learn to be silent, which any permutation would leave open.

    Args:
        labels, asked, slots: as in `class_images`.

    Returns:
        Bool `[B, K * slots, K * slots]`.
    """
    several = (labels[:, None] == asked[:, :, None]).sum(2) > 1  # [B, K]
    number = torch.arange(asked.shape[1] * slots, device=labels.device)
    same_class = number[:, None] // slots == number // slots
    return (number[:, None] == number) | (same_class & several.repeat_interleave(slots, 1)[:, :, None])


def deep_feature_loss(
    estimated: Sequence[Tensor], oracle: Sequence[Tensor], *, reduction: Reduction = "mean"
) -> Tensor:
    """Eq. 3: the L1 distance between the detector's activations, summed over its layers.

    Args:
        estimated, oracle: activations for reordered estimates and for targets, of equal shapes `[B * S, ...]`.
        reduction: within a layer: `sum` is Eq. 3 to the letter (per clip); `mean` gives all layers the same weight.

    Returns:
        A scalar, the mean over clips.
    """
    if len(estimated) != len(oracle):
        raise ValueError(
            f"there are {len(estimated)} layers of estimates, but {len(oracle)} of targets; give the same layers"
        )
    total = torch.zeros((), device=estimated[0].device)
    with torch.autocast(total.device.type, enabled=False):  # it would copy the activations into float32
        for estimate, target in zip(estimated, oracle, strict=True):
            if estimate.dtype == torch.float16:  # NOT_SMOOTH would be 0, and the gradient for equal activations 0 / 0
                estimate, target = estimate.float(), target.float()
            distance = torch.nn.functional.smooth_l1_loss(estimate, target, reduction=reduction, beta=NOT_SMOOTH)
            total = total + (distance if reduction == "mean" else distance / len(estimate))
    return total


def binary_cross_entropy(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Mean binary cross-entropy in float32, even in autocast, where torch refuses it on CUDA. Shapes are equal."""
    with torch.autocast(probabilities.device.type, enabled=False):
        return torch.nn.functional.binary_cross_entropy(probabilities.float(), labels)


def frame_loss(frame: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy between the merged detections of a mixture and its labels; needs no permutation.

    Args:
        frame: the detector's frame probabilities of each source, `[B, S, T', C]`; the maximum over the sources is used.
        labels: multi-hot frame labels of the mixture, `[B, T', C]`.

    Returns:
        A scalar, the mean over clips, frames and classes.
    """
    return binary_cross_entropy(frame.amax(1), labels)


def weak_targets(labels: Tensor, n_sources: int) -> tuple[Tensor, Tensor]:
    """Distributes clip labels over sources: a one-hot row for each present class, and zeros in the remaining rows.

    Args:
        labels: multi-hot `[B, C]`.
        n_sources: number of rows S; if a clip has more classes, the first S in label order are kept.

    Returns:
        Targets `[B, S, C]`, and whether a row holds a class, bool `[B, S]`.
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
        present_rows_only: leave out the zero rows, so that the remaining sources are not trained to be silent.

    Returns:
        A scalar, the mean over clips.
    """
    targets, rows = weak_targets(labels, clip.shape[1])
    mask = rows if present_rows_only else None
    return ops.pit_loss(clip, targets, kind="bce", mask=mask, backend=backend).loss.mean()


class Consistency(NamedTuple):
    """Eq. 6 per clip: the loss `[B]`, and the permutation `[B, S]` that frames and clips share."""

    loss: Tensor
    permutation: Tensor


def teacher_loss(
    student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor], *, backend: ops.Backend = "auto"
) -> Consistency:
    """Eq. 6: permutation-invariant MSE between the detections in the student's and in the teacher's sources.

    `min over sigma of MSE(frame_student[sigma], frame_teacher) + MSE(clip_student[sigma], clip_teacher)`, with one
    permutation for both terms. They are joined into one row per source, with weights that preserve both means.

    Args:
        student, teacher: (frame `[B, S, T', C]`, clip `[B, S, C]`) probabilities. The teacher gets no gradient.
    """
    frame_size = student[0][0, 0].numel()
    clip_size = student[1][0, 0].numel()
    total = frame_size + clip_size

    def joined(frame: Tensor, clip: Tensor) -> Tensor:
        weighted = frame.flatten(2) * (total / frame_size) ** 0.5, clip * (total / clip_size) ** 0.5
        return torch.cat(weighted, -1)

    result = ops.pit_loss(joined(*student), joined(*teacher).detach(), kind="mse", backend=backend)
    return Consistency(result.loss, result.permutation)


#: Signals with a smaller root mean square count as silent.
SILENCE = 1e-8


def thresholded_snr(
    estimates: Tensor, references: Tensor, mixture: Tensor, *, max_db: float = 30.0, max_silent_db: float = 20.0
) -> Tensor:
    """Thresholded negative signal-to-noise ratio in dB, the loss of the separation baseline (Wisdom et al., 2021).

    `10 log10((|estimate - reference|^2 + tau |r|^2) / |r|^2)` with `tau = 10^(-max / 10)`, so that
    nothing is gained beyond the threshold. `r` is the reference and `max` is `max_db`; for a silent reference, `r` is
    the mixture and `max` is `max_silent_db`.

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
    """Share of the energy in each source, largest first, averaged over clips: `[B, S, F, T]` -> `[S]`.

    (1, 0, 0, ...) means that training has collapsed: one source holds everything, and the others are empty.
    """
    energy = estimates.detach().float().square().sum((-2, -1))
    share = energy / energy.sum(-1, keepdim=True).clamp_min(1e-20)
    return share.sort(-1, descending=True).values.mean(0)


def outside_loudest(sources: Tensor) -> Tensor:
    """Share of the energy outside the loudest source of each clip: `[B, S, F, T]` -> `[B]`."""
    energy = sources.detach().float().square().sum((-2, -1))
    return 1 - energy.amax(-1) / energy.sum(-1).clamp_min(1e-20)


def si_sdr(estimates: Tensor, references: Tensor) -> Tensor:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al., 2019), of `[..., N]` each: `[...]`."""
    scale = (estimates * references).sum(-1, keepdim=True) / references.square().sum(-1, keepdim=True).clamp_min(1e-8)
    target = scale * references
    ratio = target.square().sum(-1) / (estimates - target).square().sum(-1).clamp_min(1e-8)
    return 10 * torch.log10(ratio.clamp_min(1e-8))
