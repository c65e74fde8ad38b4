"""The detector's front end, which converts waveforms to features."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from task_aware.base.types import Backend, Tensor

#: The largest sizes, with which a matrix of mel bands still takes no more than a few hundred megabytes.
LARGEST = {"sample_rate": 1 << 20, "n_fft": 1 << 16, "hop": 1 << 16, "n_mels": 1 << 10}


@dataclass(frozen=True)
class FeatureConfig:
    """A log-mel front end; the defaults are those of the DCASE 2020 task 4 baseline.

    Attributes:
        sample_rate: sample rate, Hz.
        n_fft: length of the window and of the Fourier transform, samples.
        hop: distance between frames, samples.
        n_mels: number of mel bands F.
        f_min: lower edge of the lowest mel band, Hz.
        f_max: upper edge of the highest mel band, Hz; at most half the sample rate.
        amin: amplitude below which values are clamped before the logarithm.
        top_db: dynamic range below the maximum of each clip, dB; lower values are clamped. Causal models need inf,
            which clamps nothing.
    """

    sample_rate: int = 16000
    n_fft: int = 2048
    hop: int = 255
    n_mels: int = 128
    f_min: float = 0.0
    f_max: float = 8000.0
    amin: float = 1e-5
    top_db: float = 80.0

    def __post_init__(self) -> None:
        for name, largest in LARGEST.items():
            if not 1 <= getattr(self, name) <= largest:
                raise ValueError(f"features.{name} is {getattr(self, name)}; give 1 to {largest}")
        if not 0 <= self.f_min < self.f_max <= self.sample_rate / 2:
            raise ValueError(
                f"features.f_min={self.f_min} and f_max={self.f_max} must satisfy "
                f"0 <= f_min < f_max <= {self.sample_rate / 2} Hz, half the sample rate"
            )

    @property
    def frame_seconds(self) -> float:
        """Seconds between two frames."""
        return self.hop / self.sample_rate

    def n_frames(self, n_samples: int) -> int:
        """Number of frames T of a centred transform of `n_samples` samples."""
        return n_samples // self.hop + 1

    def mel(self, waveform: Tensor, *, backend: Backend = "auto") -> Tensor:
        """Computes the linear-amplitude mel-spectrogram: `[..., N]` -> `[..., F, T]`."""
        from task_aware import ops  # not above: the command line reads these options without torch

        return ops.mel_spectrogram(
            waveform,
            sample_rate=self.sample_rate,
            n_fft=self.n_fft,
            hop=self.hop,
            n_mels=self.n_mels,
            f_min=self.f_min,
            f_max=self.f_max,
            backend=backend,
        )

    def resynthesise(self, waveform: Tensor, masks: Tensor, *, backend: Backend = "auto") -> Tensor:
        """Makes sources `[B, S, N]` from mixtures `[B, N]` and masks `[B, S, F, T]` on their mel-spectrograms."""
        from task_aware import ops  # not above: as in mel

        return ops.mask_resynthesis(
            waveform,
            masks,
            sample_rate=self.sample_rate,
            n_fft=self.n_fft,
            hop=self.hop,
            f_min=self.f_min,
            f_max=self.f_max,
            backend=backend,
        )

    def log_mel(self, mel: Tensor) -> Tensor:
        """Converts amplitudes `[..., F, T]` to dB, `20 log10(max(amin, mel))`.

        Values are clamped at `top_db` below each clip's maximum.
        """
        decibel = 20 * mel.clamp_min(self.amin).log10()
        return decibel.maximum(decibel.amax((-2, -1), keepdim=True) - self.top_db)

    def scale(self, decibel: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """Standardises each mel band of `[..., F, T]` with `mean` and `std`, both `[F]`."""
        return (decibel - mean[:, None]) / std[:, None]

    def to_dict(self) -> dict[str, float]:
        return asdict(self)
