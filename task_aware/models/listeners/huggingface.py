"""Networks of `transformers` that hear waveforms, from a folder of `save_pretrained`. Nothing is downloaded."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from task_aware.base.errors import CheckpointError
from task_aware.models.detector import Detection
from task_aware.models.listener import embedded

#: The sample rate of a folder that states none.
SAMPLE_RATE = 16000


class TransformerListener(nn.Module):
    """A network such as wav2vec 2.0, HuBERT or WavLM, with classes if it is a classifier of frames or clips.

    A classifier of clips says the same of all frames. The activations are those of the middle and the last layer.

    Args:
        network: takes waveforms `[B, N]`.
        sample_rate: sample rate of the waveforms, Hz.
        normalised: whether each clip is brought to mean 0 and variance 1, as in its training.
    """

    def __init__(self, network: Any, *, sample_rate: int, normalised: bool) -> None:
        super().__init__()
        self.network = network
        self.sample_rate = sample_rate
        self.normalised = normalised
        config = network.config
        self.frame_seconds = math.prod(config.conv_stride) / sample_rate
        name = type(network).__name__
        self.of_frames = name.endswith("ForAudioFrameClassification")
        classifies = self.of_frames or name.endswith("ForSequenceClassification")
        self.labels = tuple(config.id2label[k] for k in sorted(config.id2label)) if classifies else ()

    def forward(self, waveform: Tensor) -> Detection:
        """Hears waveforms `[B, N]`."""
        if self.normalised:
            waveform = waveform - waveform.mean(1, keepdim=True)
            waveform = waveform / (waveform.square().mean(1, keepdim=True) + 1e-7).sqrt()
        answer = self.network(waveform, output_hidden_states=True)
        layers = answer.hidden_states
        activations, n_frames = [layers[len(layers) // 2], layers[-1]], layers[-1].shape[1]
        if not self.labels:
            return embedded(activations, n_frames)
        if self.of_frames:
            frame = torch.sigmoid(answer.logits)
            return Detection(frame, frame.amax(1), activations)
        clip = torch.softmax(answer.logits, -1)
        return Detection(clip[:, None].expand(-1, n_frames, -1), clip, activations)


def make(folder: Path) -> TransformerListener:
    """The network in a folder.

    Raises CheckpointError if `transformers` is missing or cannot read the folder, or the network hears a spectrogram.
    """
    try:
        import transformers
    except ImportError as error:
        raise CheckpointError(
            f"{folder} holds a network of transformers, which is not installed; pip install transformers"
        ) from error
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        kind = getattr(transformers, (config.architectures or ["AutoModel"])[0])
        network = kind.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        described = folder / "preprocessor_config.json"
        heard = json.loads(described.read_text(encoding="utf-8")) if described.is_file() else {}
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{folder} cannot be read as a network of transformers: {error}") from error
    if not hasattr(config, "conv_stride"):
        raise CheckpointError(
            f"{folder} holds a {type(network).__name__}, which hears a spectrogram of its own; wrap it with its front "
            "end as docs/listeners.md shows, and give --detector package.module:factory"
        )
    rate = heard.get("sampling_rate", SAMPLE_RATE)
    return TransformerListener(network, sample_rate=rate, normalised=heard.get("do_normalize", False)).eval()
