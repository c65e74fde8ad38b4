"""Models for export: from waveforms to frame probabilities, without the operators of this package.

The Fourier transform is a strided convolution with cosines and sines. For ONNX, a GRU becomes ONNX's own operator,
because torch's exporter would unroll its loop for one length.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from task_aware.models.crnn import CRNN, TimeMelConv2d
from task_aware.models.features import FeatureConfig
from task_aware.models.listener import WaveformDetector
from task_aware.models.opening import detector_of
from task_aware.models.separator import MaskNetwork
from task_aware.models.system import ClassSeparator, Separator, listen
from task_aware.ops.mel_spectrogram import hamming_window, mel_filterbank


class FrontEnd(nn.Module):
    """`FeatureConfig.mel` as two matrix products: `[B, N]` -> linear amplitude `[B, F, T]`."""

    basis: Tensor
    bank: Tensor

    def __init__(self, config: FeatureConfig) -> None:
        super().__init__()
        self.config = config
        n_fft = config.n_fft
        bins, samples = torch.arange(n_fft // 2 + 1), torch.arange(n_fft)
        angles = 2 * math.pi / n_fft * (bins[:, None] * samples % n_fft).double()
        basis = torch.cat([angles.cos(), angles.sin()]) * hamming_window(n_fft)
        bank = mel_filterbank(config.sample_rate, n_fft, config.n_mels, config.f_min, config.f_max)
        self.register_buffer("basis", basis[:, None].float())
        self.register_buffer("bank", bank.float())

    def forward(self, waveform: Tensor) -> Tensor:
        half = self.config.n_fft // 2
        padded = nn.functional.pad(waveform[:, None], (half, half), mode="reflect")
        real, imaginary = nn.functional.conv1d(padded, self.basis, stride=self.config.hop).chunk(2, dim=1)
        return self.bank @ (real.square() + imaginary.square()).sqrt()


class Portable(nn.Module):
    """A separator with its detector, or a detector alone: waveforms `[B, N]` -> frame probabilities `[B, T', C]`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        if isinstance(detector_of(model), WaveformDetector):
            raise ValueError(
                "a model whose detector hears waveforms cannot be exported, as its sources are made by operators of "
                "this package; export one with a detector of mel-spectrograms"
            )
        self.model = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
        for part in self.model.modules():
            if isinstance(part, (Separator, MaskNetwork, CRNN)):
                part.backend = "reference"
        for name, part in list(self.model.named_modules()):
            if isinstance(part, TimeMelConv2d):
                self.model.set_submodule(name, with_turned_kernel(part))
        if isinstance(self.model, ClassSeparator):
            self.model.separates_all = True  # how many classes are plausible is a value, on which no shape may depend
        self.front_end = FrontEnd(detector_of(self.model).feature_config)

    def forward(self, waveform: Tensor) -> Tensor:
        return listen(self.model, self.front_end(waveform))


def with_turned_kernel(convolution: TimeMelConv2d) -> nn.Module:
    """The same convolution with its kernel stored as (mel, time).

    In ONNX, a kernel that is turned in each of two calls ends onnxruntime's int8 quantisation in an error.
    """
    filters, channels = convolution.weight.shape[:2]
    plain = nn.Conv2d(channels, filters, 3, padding=convolution.padding)  # type: ignore[arg-type]
    plain.weight = nn.Parameter(convolution.weight.transpose(2, 3).contiguous(), requires_grad=False)
    plain.bias = convolution.bias
    return nn.Sequential(convolution.context, plain)


class OnnxGRU(nn.Module):
    """An `nn.GRU` as ONNX's operator. It can be exported only, not run."""

    def __init__(self, gru: nn.GRU) -> None:
        super().__init__()
        if not (gru.batch_first and gru.bias):
            raise ValueError(
                "a GRU can be exported to ONNX only with batch_first=True and bias=True; create it with both"
            )
        self.cells, self.layers = gru.hidden_size, gru.num_layers
        self.direction = "bidirectional" if gru.bidirectional else "forward"
        suffixes = ["", "_reverse"] if gru.bidirectional else [""]

        def weights(name: str, layer: int) -> Tensor:
            """Weights of all directions. Torch orders the gates reset, update, new; ONNX update, reset, hidden."""
            parts = [getattr(gru, f"{name}_l{layer}{suffix}").detach().chunk(3) for suffix in suffixes]
            return torch.stack([torch.cat([update, reset, new]) for reset, update, new in parts])

        for layer in range(self.layers):
            biases = [weights("bias_ih", layer), weights("bias_hh", layer)]
            self.register_buffer(f"input_{layer}", weights("weight_ih", layer))
            self.register_buffer(f"recurrent_{layer}", weights("weight_hh", layer))
            self.register_buffer(f"bias_{layer}", torch.cat(biases, dim=1))

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """`[B, T, C]` -> `[B, T, directions * cells]`; the final state is not returned."""
        x = x.transpose(0, 1)
        options: dict = {"hidden_size": self.cells, "linear_before_reset": 1, "direction": self.direction}
        for layer in range(self.layers):
            tensors = [getattr(self, f"{name}_{layer}") for name in ("input", "recurrent", "bias")]
            shape = (x.shape[0], len(tensors[0]), x.shape[1], self.cells)
            y = torch.onnx.ops.symbolic("GRU", (x, *tensors), options, dtype=x.dtype, shape=shape)
            x = y.transpose(1, 2).flatten(2)
        return x.transpose(0, 1), None


def with_onnx_grus(module: nn.Module) -> nn.Module:
    """A copy of a module, with its GRUs replaced by ONNX's."""
    module = copy.deepcopy(module)
    for name, part in list(module.named_modules()):
        if isinstance(part, nn.GRU):
            module.set_submodule(name, OnnxGRU(part))
    return module
