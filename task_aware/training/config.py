"""Every option of the training commands, as dataclasses that the command line and YAML share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from task_aware.data.mixing_config import MixingConfig
from task_aware.models.crnn import CRNNConfig
from task_aware.models.features import FeatureConfig
from task_aware.models.opening import Precision
from task_aware.models.system import Merge
from task_aware.training.losses import MSEDomain, Reduction


@dataclass
class LossConfig:
    """Weights and forms of the objectives; a weight of 0 switches a term off, so an ablation row is four weights.

    The defaults are what worked best on small corpora; `paper.yaml` has the paper's.

    Attributes:
        mse: weight of the PIT-MSE of the sources (Eq. 2).
        deep_feature: weight of the deep feature loss (Eq. 3).
        weak: weight of the weak PIT binary cross-entropy (Eq. 5).
        teacher: weight of the mean-teacher consistency (Eq. 6).
        frame: weight of the cross-entropy of merged frame probabilities and the mixture's labels (not in the paper).
        domain: where the squared error is taken: linear, linear_normalised, compressed (mel ** 0.3) or log.
        deep_feature_reduction: mean or sum within a layer (sum is Eq. 3 to the letter).
        weak_present_rows_only: ask nothing of the sources that have no weak label, instead of silence.
        mask_floor: least value of a mask; the same share of the mixture is added to the targets.
    """

    mse: float = 1.0
    deep_feature: float = 0.0
    weak: float = 0.0
    teacher: float = 0.0
    frame: float = 1.0
    domain: MSEDomain = "compressed"
    deep_feature_reduction: Reduction = "mean"
    weak_present_rows_only: bool = False
    mask_floor: float = 0.02


@dataclass
class BatchConfig:
    """Clips per step and process.

    Attributes:
        strong: dynamic mixtures.
        weak: weakly labelled clips.
        unlabelled: clips without labels.
        strong_seconds: length of the mixtures; real clips are never cropped, since their labels hold for all of them.
        real_seconds: length that weak and unlabelled clips are padded or cut to.
    """

    strong: int = 12
    weak: int = 12
    unlabelled: int = 8
    strong_seconds: float = 10.0
    real_seconds: float = 10.0


@dataclass
class OptimiserConfig:
    """Adam with an exponential warm-up, `exp(-5 (1 - t / warmup)^2)`, in one or two stages.

    Attributes:
        max_steps: length of the run.
        steps_per_epoch: steps between checkpoints and progress reports.
        learning_rate: after the warm-up.
        warmup_steps: length of the warm-up.
        cosine_decay: let the rate fall to zero over each stage, along a cosine.
        separation_share: share of the steps that train by PIT-MSE alone, on strong batches alone, before the detector
            joins; 0 trains by all objectives from the first step, as the paper does.
        anchor_share: share of the steps that begin the run with a slot for each class (its column modulo the number of
            sources) instead of a free permutation. Slots of equal standing can stay on a plateau for thousands of
            steps, one of them holding every event; this start leaves it, for good only if it is long.
        separation_strong: mixtures per step while PIT-MSE trains alone.
        task_learning_rate: after that share.
        gradient_clip: largest gradient norm.
        ema_decay: largest decay of the mean teacher, `min(1 - 1 / (step + 1), ema_decay)`.
    """

    max_steps: int = 1100
    steps_per_epoch: int = 100
    learning_rate: float = 2e-3
    warmup_steps: int = 50
    cosine_decay: bool = True
    separation_share: float = 0.4
    anchor_share: float = 0.4
    separation_strong: int = 8
    task_learning_rate: float = 1e-3
    gradient_clip: float = 5.0
    ema_decay: float = 0.999

    @property
    def separation_steps(self) -> int:
        """Steps of the first stage."""
        return round(self.separation_share * self.max_steps)

    @property
    def anchor_steps(self) -> int:
        """Steps with a slot for each class."""
        return round(self.anchor_share * self.max_steps)


@dataclass
class SeparatorConfig:
    """The mask network and how its sources' detections are merged.

    Attributes:
        preset: sizes (conv_tasnet_text, conv_tasnet_3m, small).
        n_sources: masks.
        merge: rule for the sources' detections.
        causal: look back alone, so that it can hear a stream; for a causal detector.
    """

    preset: Literal["conv_tasnet_text", "conv_tasnet_3m", "small"] = "small"
    n_sources: int = 5
    merge: Merge = "average"
    causal: bool = False


@dataclass
class DetectorTrainingConfig:
    """Mean-teacher training of a detector, as the DCASE 2020 baseline does it.

    Attributes:
        features: the front end.
        crnn: the detector's sizes.
        mixing: how strongly labelled clips are mixed.
        strong: `mixing` mixes them anew at each step, `synthetic` reads the fixed synthetic split.
        batch: clips per step (the baseline: 6 strong, 6 weak, 12 unlabelled).
        max_steps, steps_per_epoch, learning_rate, warmup_steps: as in OptimiserConfig; the ramp of the warm-up is also
            that of the consistency weight.
        cosine_decay: let the rate fall to zero over the run, along a cosine, after the warm-up.
        consistency: largest weight of the consistency with the mean teacher.
        teacher_noise_db: signal-to-noise ratio of what the teacher hears, dB.
        ema_decay: largest decay of the mean teacher.
        keep: which of the two is saved: the student (the baseline's choice) or the teacher (its running average).
    """

    features: FeatureConfig = field(default_factory=FeatureConfig)
    crnn: CRNNConfig = field(default_factory=CRNNConfig)
    mixing: MixingConfig = field(default_factory=MixingConfig)
    strong: Literal["mixing", "synthetic"] = "mixing"
    batch: BatchConfig = field(default_factory=lambda: BatchConfig(strong=6, weak=6, unlabelled=12))
    max_steps: int = 900
    steps_per_epoch: int = 250
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    cosine_decay: bool = False
    consistency: float = 2.0
    teacher_noise_db: float = 30.0
    ema_decay: float = 0.999
    keep: Literal["student", "teacher"] = "student"


@dataclass
class DenoiserTrainingConfig:
    """Training of the separation baseline.

    Attributes:
        preset: sizes of the denoiser: tdcn (the baseline's 32 blocks) or small.
        mixtures: per step and process (the baseline: 3).
        seconds: length of the mixtures.
        max_steps, steps_per_epoch, learning_rate: as in OptimiserConfig, without a warm-up.
    """

    preset: Literal["tdcn", "small"] = "small"
    mixtures: int = 3
    seconds: float = 10.0
    max_steps: int = 1000
    steps_per_epoch: int = 100
    learning_rate: float = 1e-4


@dataclass
class RunConfig:
    """What all training commands share.

    Attributes:
        data: folder in DESED's layout; without it, the built-in corpus.
        rirs: folder of room impulse responses; default DATA/rirs where it exists, otherwise the mixtures are dry.
        out: folder of the run.
        seed: of weights and data.
        fused: native operators; `--no-fused` trains with their PyTorch references.
        precision: of the networks.
        accelerator: auto, cpu or gpu.
        devices: processes, one per device.
        workers: processes that draw mixtures and decode clips; 0 does it in the training process.
        resume: continue OUT's last checkpoint.
        fast_dev_run: a few steps and clips, to see that everything runs.
    """

    data: Path | None = None
    rirs: Path | None = None
    out: Path = Path("runs/separator")
    seed: int = 0
    fused: bool = True
    precision: Precision = "32-true"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = 1
    workers: int = 0
    resume: bool = False
    fast_dev_run: bool = False


@dataclass
class FrozenDetectorConfig(RunConfig):
    """What the commands share that train something for a frozen detector.

    Attributes:
        detector: checkpoint of the frozen detector, or package.module:factory of one of your own; without it, the one
            that comes with the built-in corpus, and for other data or another `detector_config` than its own one that
            is trained first, by the options there.
        detector_config: YAML of `train_sed` options, a path or a name that comes with the package.
        mixing: dynamic mixing of the strong clips.
    """

    detector: str | None = None
    detector_config: str = "detector_builtin"
    mixing: MixingConfig = field(default_factory=MixingConfig)


@dataclass
class TrainConfig(FrozenDetectorConfig):
    """`python -m task_aware.train`.

    Attributes:
        separator: the mask network and how its sources' detections are merged.
        losses: weights and forms of the objectives.
        optimiser: length of the run, learning rates, stages.
        batch: clips per step.
        cuda_graph: record a step's losses and gradients as CUDA graphs; on one GPU.
    """

    out: Path = Path("runs/separator")
    cuda_graph: bool = False
    separator: SeparatorConfig = field(default_factory=SeparatorConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)

    @property
    def schedule(self) -> OptimiserConfig:
        """What --epochs and --max-steps set."""
        return self.optimiser


@dataclass
class TrainSepConfig(FrozenDetectorConfig):
    """`python -m task_aware.train_sep`.

    Attributes:
        denoiser: what is trained, on what, for how long.
    """

    out: Path = Path("runs/denoiser")
    denoiser: DenoiserTrainingConfig = field(default_factory=DenoiserTrainingConfig)

    @property
    def schedule(self) -> DenoiserTrainingConfig:
        """What --epochs and --max-steps set."""
        return self.denoiser


@dataclass
class TrainSedConfig(RunConfig):
    """`python -m task_aware.train_sed`.

    Attributes:
        training: what is trained, on what, for how long.
    """

    out: Path = Path("runs/detector")
    training: DetectorTrainingConfig = field(default_factory=DetectorTrainingConfig)

    @property
    def schedule(self) -> DetectorTrainingConfig:
        """What --epochs and --max-steps set."""
        return self.training
