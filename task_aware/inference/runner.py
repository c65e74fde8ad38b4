"""Runs the networks on windows of many recordings, in batches."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from contextlib import nullcontext
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from task_aware.base.errors import RecordingError
from task_aware.inference.joining import Answer
from task_aware.inference.windows import Window, Windowing
from task_aware.inference.workers import in_order
from task_aware.models.analysis import Analysis
from task_aware.models.crnn import GatedBlock
from task_aware.models.opening import detector_of
from task_aware.models.options import Precision
from task_aware.models.projection import project_sources
from task_aware.models.system import Separator, listen

Key = TypeVar("Key", bound=Hashable)


class Runner:
    """Computes the frame probabilities of windows and, on request, the waveforms of their sources.

    Args:
        model: a separator or a detector, on its device and in evaluation mode.
        windowing: how the windows were cut.
        device: the model's device.
        precision: precision of the networks.
        batch_size: windows per batch.
        workers: batches that are computed at once, by as many threads.
    """

    def __init__(
        self,
        model: nn.Module,
        windowing: Windowing,
        device: torch.device,
        precision: Precision,
        batch_size: int,
        workers: int = 1,
    ) -> None:
        self.model = model
        self.separator = model if isinstance(model, Separator) else None
        for module in model.modules():
            if isinstance(module, GatedBlock):
                with torch.no_grad():
                    module.folded = module.fold()
        self.front_end = detector_of(model).feature_config
        self.windowing = windowing
        self.device = device
        self.precision = precision
        self.batch_size = batch_size
        self.workers = workers

    def answers(
        self, windows: Iterable[tuple[Key, Window | RecordingError]], *, with_sources: bool
    ) -> Iterator[tuple[Key, Answer | RecordingError]]:
        """Yields the results of each window, in order within a recording; windows of equal length are batched.

        An error is passed on before the results of windows that still wait for their batch to fill.
        """
        for found in in_order(lambda group: self._run(group, with_sources), self._batches(windows), self.workers):
            yield from found

    def _batches(
        self, windows: Iterable[tuple[Key, Window | RecordingError]]
    ) -> Iterator[list[tuple[Key, Window]] | tuple[Key, RecordingError]]:
        """Groups windows of equal length; an error overtakes the windows that still wait for their batch to fill."""
        waiting: dict[int, list[tuple[Key, Window]]] = {}
        for key, item in windows:
            if isinstance(item, RecordingError):
                yield key, item
                continue
            group = waiting.setdefault(len(item.samples), [])
            group.append((key, item))
            if len(group) == self.batch_size:
                yield waiting.pop(len(item.samples))
            elif sum(map(len, waiting.values())) > 4 * self.batch_size:
                yield waiting.pop(next(iter(waiting)))
        yield from waiting.values()

    @torch.inference_mode()
    def _run(
        self, group: list[tuple[Key, Window]] | tuple[Key, RecordingError], with_sources: bool
    ) -> list[tuple[Key, Answer | RecordingError]]:
        if isinstance(group, tuple):
            return [group]
        hop, lead = self.front_end.hop, group[0][1].lead
        heard = waveform = torch.from_numpy(np.stack([window.samples for _, window in group])).to(self.device)
        mel = self.front_end.mel(waveform, backend="auto" if self.separator is None else self.separator.backend)
        if lead:
            begin = lead // hop
            mel = mel[..., begin : begin + self.windowing.n_frames].contiguous()
            heard = waveform[:, lead : lead + self.windowing.n_frames * hop - 1]  # has as many frames
        with self._autocast():
            analysis = None if self.separator is None else self.separator.analyse(mel, heard)
            frame = listen(self.model, mel, heard) if analysis is None else analysis.merged
        frames = _array(frame)
        if analysis is None:
            return [(key, Answer(window, frames[i])) for i, (key, window) in enumerate(group)]
        alone = _array(analysis.alone.frame)
        if not with_sources:
            return [(key, Answer(window, frames[i], alone=alone[i])) for i, (key, window) in enumerate(group)]
        waveforms = self._waveforms(waveform, mel, analysis, lead).cpu().numpy()
        sources = analysis.separation.mel.float()
        probabilities: np.ndarray | None = None
        if self.separator is not None and self.separator.slots is not None:
            slots, n_sources = self.separator.slots, len(self.separator.source_names)
            if slots > 1:  # Join looks for their order
                sources = analysis.all_sources(sources, n_sources)
            probabilities = analysis.all_sources(analysis.own_probabilities(slots), n_sources).float().cpu().numpy()
        answers: list[tuple[Key, Answer | RecordingError]] = []
        for i, (key, window) in enumerate(group):
            n_samples = window.stop - window.first * hop
            of_sources = waveforms[i, :, lead : lead + n_samples]
            of_class = None if probabilities is None else probabilities[i]
            answers.append((key, Answer(window, frames[i], of_sources, sources[i], alone[i], of_class)))
        return answers

    def _waveforms(self, waveform: Tensor, mel: Tensor, analysis: Analysis, lead: int) -> Tensor:
        """The sources of mixtures `[B, N]` as waveforms `[B, S, N]`; beside those of classes also the rest."""
        assert self.separator is not None
        separated = project_sources(waveform, analysis.separation.mel, mel, self.front_end, lead=lead)
        if self.separator.sources == "free":
            return separated
        sources = analysis.all_sources(separated, len(self.separator.source_names))
        return torch.cat([sources, waveform[:, None] - separated.sum(1, keepdim=True)], 1)

    def _autocast(self) -> Any:
        if self.precision == "32-true":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)


def _array(frame: Tensor) -> np.ndarray:
    """Probabilities `[B, T', C]` as `[B, C, T']`."""
    return frame.transpose(1, 2).float().cpu().numpy()
