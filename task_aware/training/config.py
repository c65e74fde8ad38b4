"""All options of the training commands, as dataclasses that the command line and recipes share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from task_aware.data.mixing_config import MixingConfig
from task_aware.models.features import FeatureConfig
from task_aware.models.options import CRNNConfig, Merge, Precision

MSEDomain = Literal["linear", "linear_normalised", "compressed", "log"]
Reduction = Literal["mean", "sum"]


@dataclass
class LossConfig:
    """Weights and forms of the losses. A weight of 0 switches a loss off.

    The defaults worked best on small corpora; the paper's values are in the recipe `paper`.

    Attributes:
        mse: weight of the squared error of the sources (Eq. 2).
        deep_feature: weight of the deep feature loss (Eq. 3).
        weak: weight of the cross-entropy with weak labels (Eq. 5).
        teacher: weight of the consistency with the mean teacher (Eq. 6).
        frame: weight of the cross-entropy of merged frame probabilities with the mixture's labels (not in the paper).
        own: weight of the cross-entropy of each class, detected in its own source, with the frame labels; for sources
            of classes (not in the paper).
        domain: representation in which the squared error is computed; compressed is mel ** 0.3.
        deep_feature_reduction: how differences within a layer are combined; sum is Eq. 3 to the letter.
        weak_present_rows_only: leave out sources without a weak label, instead of training them to be silent.
        mask_floor: lower bound of the masks; the same share of the mixture is added to the targets.
    """

    mse: float = 1.0
    deep_feature: float = 0.0
    weak: float = 0.0
    teacher: float = 0.0
    frame: float = 1.0
    own: float = 0.0
    domain: MSEDomain = "compressed"
    deep_feature_reduction: Reduction = "mean"
    weak_present_rows_only: bool = False
    mask_floor: float = 0.02


@dataclass
class BatchConfig:
    """Clips per step and process.

    Attributes:
        strong: number of dynamic mixtures.
        weak: number of weakly labelled clips.
        unlabelled: number of clips without labels.
        strong_seconds: length of the mixtures in seconds.
        real_seconds: length in seconds to which weak and unlabelled clips are padded or cut.
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
        max_steps: length of the run in steps.
        steps_per_epoch: steps per epoch; each epoch ends with a checkpoint.
        learning_rate: learning rate after the warm-up.
        warmup_steps: length of the warm-up in steps.
        cosine_decay: whether the learning rate falls to zero over each stage, along a cosine.
        separation_share: share of the steps that train by squared error only, on mixtures only, before the detector
            takes part; 0 uses all losses from the first step, as the paper does.
        anchor_share: share of the steps, from the first one, with a fixed source for each class (its index modulo the
            number of sources) instead of the best permutation. Otherwise training can stay on a plateau for thousands
            of steps, with all events in one source; a short share leaves it only for a while.
        separation_strong: mixtures per step during the separation share.
        task_learning_rate: learning rate after the separation share.
        gradient_clip: largest gradient norm; 0 does not clip.
        ema_decay: largest decay of the mean teacher, which is `min(1 - 1 / (step + 1), ema_decay)`.
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
        """Steps that train by squared error only."""
        return round(self.separation_share * self.max_steps)

    @property
    def anchor_steps(self) -> int:
        """Steps with a fixed source for each class."""
        return round(self.anchor_share * self.max_steps)


@dataclass
class SeparatorConfig:
    """The mask network, and how the detections of its sources are merged.

    Attributes:
        preset: sizes of the network (see docs/recipes.md).
        sources: free sources, in any order, as in the paper; or classes, a source for each class of the detector.
        n_sources: number of sources to estimate; of classes, the number of classes that are trained in a mixture.
        slots_per_class: sources of classes only: sources for each class, to separate as many sounds of one class.
        conditioned: whether the network is told what the detector found in the mixture; sources of classes only.
        merge: how the detections of the sources are merged (see docs/training.md). Default: average for free sources,
            own_average for those of classes.
        causal: look only at the past, for live streams; needs a causal detector.
    """

    preset: Literal["conv_tasnet_text", "conv_tasnet_3m", "medium", "small"] = "small"
    sources: Literal["free", "classes"] = "free"
    n_sources: int = 5
    slots_per_class: int = 1
    conditioned: bool = True
    merge: Merge | None = None
    causal: bool = False

    @property
    def merging_rule(self) -> Merge:
        """The rule, by default the best for the sources."""
        return self.merge or ("own_average" if self.sources == "classes" else "average")


@dataclass
class DetectorTrainingConfig:
    """Mean-teacher training of a detector, as in the DCASE 2020 baseline.

    Attributes:
        features: the front end.
        crnn: sizes of the detector.
        mixing: how strongly labelled clips are mixed.
        strong: source of strongly labelled clips: mixed anew at each step, or read from the fixed synthetic split.
        batch: clips per step (in the baseline 6 strong, 6 weak, 12 unlabelled).
        max_steps: length of the run in steps.
        steps_per_epoch: steps per epoch; each epoch ends with a checkpoint.
        learning_rate: learning rate after the warm-up.
        warmup_steps: steps over which the learning rate and the weight of the consistency rise.
        cosine_decay: whether the learning rate falls to zero after the warm-up, along a cosine.
        consistency: largest weight of the consistency with the mean teacher.
        teacher_noise_db: signal-to-noise ratio of the teacher's input in dB.
        ema_decay: largest decay of the mean teacher.
        keep: which network is saved: the student, as in the baseline, or the teacher, its running average.
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
        preset: sizes of the denoiser; tdcn is the baseline's, with 32 blocks.
        mixtures: mixtures per step and process (3 in the baseline).
        seconds: length of the mixtures in seconds.
        max_steps: length of the run in steps.
        steps_per_epoch: steps per epoch; each epoch ends with a checkpoint.
        learning_rate: learning rate, which stays constant.
    """

    preset: Literal["tdcn", "small"] = "small"
    mixtures: int = 3
    seconds: float = 10.0
    max_steps: int = 1000
    steps_per_epoch: int = 100
    learning_rate: float = 1e-4


@dataclass
class RunConfig:
    """Options of all training commands.

    Attributes:
        data: data folder in DESED's layout; default: the built-in corpus.
        rirs: folder of room impulse responses; default: DATA/rirs if it exists, otherwise no reverberation.
        channel: channel of the recordings to take, counted from 0; default: the mean of all, or W where a header says
            Ambisonic.
        out: output folder.
        seed: random seed of weights and data.
        fused: train with the native operators; `--no-fused`: with their PyTorch references.
        precision: numerical precision of the networks.
        accelerator: device; auto: a GPU if there is one.
        devices: number of devices, with one process each.
        workers: processes that prepare data, per device; 0 prepares them in the training process.
        resume: continue a stopped run from its last checkpoint in OUT, with the same options or more steps.
        fast_dev_run: check that everything runs, with a few steps.
    """

    command: ClassVar[str]

    data: Path | None = None
    rirs: Path | None = None
    channel: int | None = None
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
    """Options of the commands that train something for a frozen detector.

    Attributes:
        detector: the detector to freeze: a checkpoint, package.module:factory for your own, or what hears waveforms
            (silero_vad, torchcrepe, resemblyzer, the folder of a network of transformers). Default: the one in the
            package; with --data or another `detector_config`, one that is trained first by `detector_config`.
        detector_config: recipe of the detector that is trained first, a path or the name of a packaged one.
        mixing: how mixtures are made.
    """

    detector: str | None = None
    detector_config: str = "detector_builtin"
    mixing: MixingConfig = field(default_factory=MixingConfig)


@dataclass
class TrainConfig(FrozenDetectorConfig):
    """Options of `python -m task_aware.train`.

    Attributes:
        separator: the mask network, and how the detections of its sources are merged.
        losses: weights and forms of the losses.
        optimiser: length of the run, learning rates and stages.
        batch: clips per step.
        cuda_graph: record each step's losses and gradients as CUDA graphs, to save launch time; on one GPU only.
        preview: show in TensorBoard how a validation clip is separated so far, as a picture and as sound.
    """

    command: ClassVar[str] = "train"

    out: Path = Path("runs/separator")
    cuda_graph: bool = False
    preview: bool = True
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
    """Options of `python -m task_aware.train_sep`.

    Attributes:
        detector: checkpoint of the detector to freeze. Default: the one in the package; with --data or another
            `detector_config`, one that is trained first by `detector_config`. A factory, as for `train`, is refused,
            because the detector is saved with the denoiser.
        denoiser: the denoiser and its training.
    """

    command: ClassVar[str] = "train_sep"

    detector: str | None = None
    out: Path = Path("runs/denoiser")
    denoiser: DenoiserTrainingConfig = field(default_factory=DenoiserTrainingConfig)

    @property
    def schedule(self) -> DenoiserTrainingConfig:
        """What --epochs and --max-steps set."""
        return self.denoiser


@dataclass
class TrainSedConfig(RunConfig):
    """Options of `python -m task_aware.train_sed`.

    Attributes:
        classes: the classes to detect; default: those of the data, sorted. Other labels in the data are an error.
        training: the detector and its training.
    """

    command: ClassVar[str] = "train_sed"

    out: Path = Path("runs/detector")
    classes: list[str] | None = None
    training: DetectorTrainingConfig = field(default_factory=DetectorTrainingConfig)

    @property
    def schedule(self) -> DetectorTrainingConfig:
        """What --epochs and --max-steps set."""
        return self.training
