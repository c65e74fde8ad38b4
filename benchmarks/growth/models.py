"""How whole models grow: steps with clips and with classes, inference with classes, and everything with cores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import ModuleType

import torch

from benchmarks import test_pit_loss, test_reverb_mix
from benchmarks.side_by_side import Outputs, Settings, peer
from benchmarks.test_training_step import (
    SAMPLE_RATE,
    Shape,
    StepModule,
    Variant,
    make_batch,
    make_module,
    packaged_detector,
    stepping,
)
from task_aware import ops
from task_aware.data.batches import TrainingBatch
from task_aware.models.condition import condition_size
from task_aware.models.crnn import CRNN
from task_aware.models.separator import PRESETS, MaskNetwork, preset
from task_aware.models.system import ClassSeparator
from task_aware.training.config import LossConfig, OptimiserConfig

from .growing import NATIVE, Case, Part, cores_of_machine
from .operators import REFERENCE, case_of

ASTEROID = "Asteroid's ConvTasNet, with its PIT"
ALL, ALL_REFERENCE = f"{NATIVE}, all classes", "PyTorch, all classes"
BACKENDS: dict[str, ops.Backend] = {NATIVE: "native", REFERENCE: "reference"}
#: Classes that are plausible in a recording, as far as there are as many.
N_PLAUSIBLE = 3


def step_run(module: StepModule, batch: TrainingBatch, variant: Variant) -> Callable[[], Outputs]:
    """Steps that return their loss terms."""
    step = stepping(module, batch, "cpu", variant)

    def run() -> Outputs:
        step()
        return tuple(value.detach().double() for value in module.terms.values())

    return run


def steps(default: bool) -> Callable[[float, frozenset[str]], Case]:
    """Steps of the default recipe through its detector, or of free sources with the squared error alone."""

    def make(size: float, without: frozenset[str]) -> Case:
        clips = max(1, round(size))
        seconds = 5.0 if size >= 1 else 1.0
        shape = Shape(clips, 0, 0, seconds, "through the detector" if default else None)
        torch.manual_seed(0)
        batch = make_batch(shape, "cpu")
        settings = Settings(quick=size < 1)

        def run(backend: ops.Backend) -> Callable[[], Outputs]:
            return step_run(make_module(shape, settings, "cpu", Variant(backend)), batch, Variant(backend))

        runs = {name: run(backend) for name, backend in BACKENDS.items() if name not in without}
        if not default and ASTEROID not in without and (models := peer("asteroid.models")):
            runs[ASTEROID] = asteroid_step(models, clips, round(seconds * SAMPLE_RATE))
        return Case(runs, expected=run("reference")(), unlike=frozenset({ASTEROID}))

    return make


def asteroid_step(models: ModuleType, clips: int, n_samples: int) -> Callable[[], Outputs]:
    """A step of Asteroid's ConvTasNet with the sizes of our mask network, on ready mixtures of five sources."""
    losses = peer("asteroid.losses")
    assert losses is not None
    sizes = PRESETS["small"]
    network = models.ConvTasNet(
        n_src=5,
        n_blocks=sizes["blocks"],
        n_repeats=sizes["repeats"],
        bn_chan=sizes["bottleneck"],
        hid_chan=sizes["hidden"],
        skip_chan=sizes["skip"],
        n_filters=128,
        kernel_size=32,
        stride=16,
        sample_rate=SAMPLE_RATE,
    )
    loss_of = losses.PITLossWrapper(losses.pairwise_neg_sisdr, pit_from="pw_mtx")
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    sources = 0.1 * torch.randn(clips, 5, n_samples)
    mixture = sources.sum(1)

    def step() -> Outputs:
        optimiser.zero_grad()
        loss = loss_of(network(mixture), sources)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        return (loss.detach(),)

    return step


def detector_of(n_classes: int) -> CRNN:
    """The packaged detector with other classes, of which three are plausible in everything."""
    packaged = packaged_detector()
    torch.manual_seed(0)
    detector = CRNN(packaged.config, tuple(f"class_{k}" for k in range(n_classes)), packaged.feature_config)
    own, known = detector.state_dict(), packaged.state_dict()
    detector.load_state_dict({k: known[k] if known[k].shape == x.shape else x for k, x in own.items()})
    with torch.no_grad():
        detector.dense.weight.mul_(0.1)
        detector.dense.bias.fill_(-5.0)[:N_PLAUSIBLE] = 5.0
    return detector.eval()


def separator_of(n_classes: int, backend: ops.Backend) -> ClassSeparator:
    """A separator with a source for each class."""
    detector = detector_of(n_classes)
    sizes = preset("small", n_mels=detector.feature_config.n_mels, n_sources=n_classes)
    torch.manual_seed(1)
    network = MaskNetwork(replace(sizes, conditioning=condition_size(detector)))
    return ClassSeparator(network, detector, merge="own_average", backend=backend).eval()


def hearing(size: float, without: frozenset[str]) -> Case:
    """Inference on ten seconds: the plausible classes alone, and all."""
    n_classes = int(size)
    runs: dict[str, Callable[[], Outputs]] = {}
    expected: Outputs = ()
    torch.manual_seed(2)
    waveform = 0.1 * torch.randn(1, 10 * SAMPLE_RATE)
    for name, all_classes, backend in (
        (REFERENCE, False, "reference"),
        (ALL_REFERENCE, True, "reference"),
        (NATIVE, False, "native"),
        (ALL, True, "native"),
    ):
        separator = separator_of(n_classes, backend)  # type: ignore[arg-type]
        separator.separates_all = all_classes

        def run(separator: ClassSeparator = separator, backend: ops.Backend = backend) -> Outputs:  # type: ignore[assignment]
            mel = separator.detector.feature_config.mel(waveform, backend=backend)
            return (separator.analyse(mel).merged,)

        if name not in without:
            runs[name] = run
        if name == REFERENCE:
            expected = tuple(x.double() for x in run())
    return Case(runs, expected, tolerance=1e-3)


def class_steps(size: float, without: frozenset[str]) -> Case:
    """Training steps through detectors of as many classes; five are asked for in each of two mixtures."""
    n_classes = int(size)
    shape = Shape(2, 0, 0, 5.0, "through the detector")
    torch.manual_seed(0)
    batch = make_batch(shape, "cpu")
    assert batch.strong is not None
    strong = batch.strong._replace(
        labels=torch.where(batch.strong.labels >= 0, batch.strong.labels % n_classes, -1),
        frames=batch.strong.frames.new_zeros(*batch.strong.frames.shape[:2], n_classes),
    )
    batch = batch._replace(strong=strong)

    def run(backend: ops.Backend) -> Callable[[], Outputs]:
        losses = LossConfig(mse=20.0, own=1.0, frame=0.0)
        schedule = OptimiserConfig(separation_share=0.0, anchor_share=0.0)
        return step_run(StepModule(separator_of(n_classes, backend), losses, schedule).train(), batch, Variant(backend))

    runs = {name: run(backend) for name, backend in BACKENDS.items() if name not in without}
    return Case(runs, expected=run("reference")())


def on_cores(make: Callable[[float], Case]) -> Callable[[float, frozenset[str]], Case]:
    """A case on as many threads as its size says, which stay set while it is timed; below 1, on one and tiny."""

    def case(size: float, _: frozenset[str]) -> Case:
        torch.set_num_threads(max(1, int(size)))
        torch.manual_seed(0)
        return make(size)

    return case


def pit_loss(size: float) -> Case:
    shape = test_pit_loss.HEADLINE if size >= 1 else test_pit_loss.Shape((2, 5, 16, 40))
    case = test_pit_loss.make_case(shape, "cpu")
    reference = partial(ops.pit_loss_reference, kind="mse")
    return case_of(case, test_pit_loss.native(shape), reference, {}, frozenset(), backward=True)


def reverb_mix(size: float) -> Case:
    shape = test_reverb_mix.Shape(4, 5, 160_000, 16_000) if size >= 1 else test_reverb_mix.Shape(2, 3, 4001, 300)
    case = test_reverb_mix.make_case(shape, "cpu")
    return case_of(case, test_reverb_mix.native, ops.reverb_mix_reference, {}, frozenset(), backward=False)


def four_mixtures(size: float) -> Case:
    return steps(default=True)(4 if size >= 1 else size, frozenset())


def parts() -> list[Part]:
    clips, classes = (1, 2, 4, 8, 16), (1, 3, 10, 32, 100, 527)
    for_cores = partial(Part, "cores", axis="threads", sizes=cores_of_machine(), quick=(0.5,), by_the_clock=True)
    return [
        Part("batch", "step of the default recipe, through the detector", "mixtures of 5 s", clips, (0.5,),
             steps(default=True)),
        Part("batch", "step with the squared error and PIT alone", "mixtures of 5 s", clips, (0.5,),
             steps(default=False)),
        Part("classes", "inference on ten seconds", "classes", classes, (2,), hearing),
        Part("classes", "training step, two mixtures of 5 s", "classes", classes, (2,), class_steps),
        for_cores(title="pit_loss [12, 5, 128, 628], forward and backward", make=on_cores(pit_loss)),
        for_cores(title="reverb_mix, four clips of ten seconds, rooms of 1 s", make=on_cores(reverb_mix)),
        for_cores(title="step of the default recipe, four mixtures", make=on_cores(four_mixtures)),
    ]  # fmt: skip
