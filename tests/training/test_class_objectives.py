"""The loss of sources of classes: what is asked for, what it should be, and where gradients go."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch

from task_aware import evaluate, train
from task_aware.models.analysis import Separation
from task_aware.models.condition import condition_size
from task_aware.models.opening import BUILTIN_DETECTOR
from task_aware.models.separator import MaskNetwork, MaskNetworkConfig
from task_aware.models.system import ClassSeparator
from task_aware.training import losses
from task_aware.training.class_objectives import ClassObjectives
from task_aware.training.config import LossConfig, OptimiserConfig, SeparatorConfig, TrainConfig
from task_aware.training.objectives import Stage
from task_aware.training.separator import TaskAwareModule
from task_aware.training.setup import check_sources

SEPARATING, DETECTING = Stage(False, through_detector=False), Stage(False, through_detector=True)


def make_module(detector, weights: LossConfig | None = None, *, slots: int = 1, **options) -> TaskAwareModule:
    torch.manual_seed(0)
    sizes = MaskNetworkConfig(
        n_mels=32, n_sources=10 * slots, bottleneck=8, hidden=8, skip=8, blocks=2, repeats=1,
        conditioning=condition_size(detector),
    )  # fmt: skip
    system = ClassSeparator(MaskNetwork(sizes), copy.deepcopy(detector), merge="own_average")
    weights = weights or LossConfig(mse=20.0, own=1.0, frame=0.0)
    return TaskAwareModule(system, weights, OptimiserConfig(), **options).train()


def test_the_image_of_an_asked_class_is_its_own_and_of_others_silence():
    images = torch.rand(2, 3, 4, 5)
    labels = torch.tensor([[7, 2, -1], [0, -1, -1]])
    placed = losses.class_images(images, labels, torch.tensor([[2, 5, 7], [1, 0, 3]]))
    assert torch.equal(placed[0, 0], images[0, 1]) and torch.equal(placed[0, 2], images[0, 0])
    assert torch.equal(placed[1, 1], images[1, 0])
    assert not placed[0, 1].any() and not placed[1, [0, 2]].any()


def test_each_image_of_an_asked_class_has_a_slot_and_the_last_has_those_that_are_left():
    images = torch.rand(2, 4, 4, 5)
    labels = torch.tensor([[7, 2, 7, 7], [0, -1, -1, 0]])
    placed = losses.class_images(images, labels, torch.tensor([[2, 7], [0, 3]]), slots=2)
    wanted = torch.zeros(2, 4, 4, 5)
    wanted[0, 0], wanted[0, 2], wanted[0, 3] = images[0, 1], images[0, 0], images[0, 2] + images[0, 3]
    wanted[1, 0], wanted[1, 1] = images[1, 0], images[1, 3]
    torch.testing.assert_close(placed, wanted)


def with_doubles(batch):
    """The same mixtures with two sources of class 4, and in the second nothing of any class."""
    labels = torch.tensor([[4, 4, 5], [-1, -1, -1]])
    return batch._replace(strong=batch.strong._replace(labels=labels, gains=(labels >= 0).float()))


def test_the_order_of_two_images_changes_no_loss_but_which_class_they_have_does(small_detector, make_batch):
    weights = LossConfig(mse=20.0, frame=0.0, own=1.0, deep_feature=1.0)
    batch = with_doubles(make_batch())

    def losses_of(order: list[int]) -> dict[str, torch.Tensor]:
        module = make_module(small_detector, weights, slots=2, n_asked=10)
        for parameter in module.system.mask_network.mask[1].parameters():
            parameter.data = parameter.data.unflatten(0, (20, 32))[order].flatten(0, 1)
        torch.manual_seed(0)
        return module.objectives(batch, DETECTING).terms

    found = losses_of(list(range(20)))
    assert set(found) == {"mse", "own", "deep_feature"} and all(value.isfinite() for value in found.values())
    torch.testing.assert_close(losses_of([*range(8), 9, 8, *range(10, 20)]), found, rtol=1e-4, atol=0)  # of class 4
    other = losses_of(list(range(2, 20)) + [0, 1])
    assert all(not torch.allclose(other[name], found[name], rtol=1e-4, atol=0) for name in found)


def test_the_slots_of_two_images_are_interchangeable_and_that_of_one_is_not(small_detector, make_batch, monkeypatch):
    module = make_module(small_detector, LossConfig(mse=1.0, frame=0.0, own=0.0, deep_feature=1.0), slots=2)
    system, objectives = module.system, module.objectives
    batch = with_doubles(make_batch()).strong

    def perfect(swapped, mixture_mel, condition, asked, mask_network=None, *, waveform=None):
        targets = losses.class_images(objectives.images(batch)[2], batch.labels, asked, slots=2)
        targets = targets.unflatten(1, (-1, 2))
        targets = targets.flip(2).where((asked == swapped)[:, :, None, None, None], targets).flatten(1, 2)
        targets = targets + system.mask_floor * mixture_mel[:, None]
        return Separation(targets, system.mixture_features(targets))

    gains = []
    for swapped, free in ((-1, True), (4, True), (5, False)):  # no class, that of two images, that of one
        monkeypatch.setattr(system, "separate_classes", partial(perfect, swapped))
        terms = objectives.mixture_terms(batch, DETECTING)
        assert (float(terms["mse"]) == 0) == free == (float(terms["deep_feature"]) == 0)
        gains.append(float(module.measure(batch)["sdr_gain"]))
    assert gains == pytest.approx([gains[0]] * 3, rel=1e-4) and gains[0] > 0.1  # of noise, masks on bands gain little


@pytest.mark.parametrize("slots", [1, 2])
def test_mixtures_without_any_target_train_silence(small_detector, make_batch, slots):
    module = make_module(small_detector, slots=slots)
    strong = make_batch().strong
    empty = strong._replace(labels=torch.full((2, 3), -1), gains=torch.zeros(2, 3), background=strong.sources[:, 0])
    total, terms = module.objectives(make_batch()._replace(strong=empty), DETECTING)
    total.backward()
    gradient = module.system.mask_network.mask[1].bias.grad
    assert terms["mse"] > 0 and gradient.isfinite().all()
    assert (gradient >= 0).all() and gradient.any()  # every mask that was asked for is lowered
    assert module.measure(empty) == {"sdr_gain": 0}


def test_present_classes_are_asked_for_and_others_at_random(small_detector):
    objectives = make_module(small_detector, n_asked=4).objectives
    labels = torch.tensor([[9, 3, -1], [-1, -1, -1]])
    seen = set()
    for seed in range(40):
        torch.manual_seed(seed)
        asked = objectives.asked(labels)
        assert asked.shape == (2, 4) and all(len(set(row)) == 4 for row in asked.tolist())
        assert {9, 3} <= set(asked[0].tolist())
        seen |= set(asked[0].tolist())
    assert seen == set(range(10))


def test_the_detector_joins_at_its_stage_and_stays_as_it_is(small_detector, make_batch):
    module = make_module(small_detector)
    assert isinstance(module.objectives, ClassObjectives)
    before = copy.deepcopy(module.system.detector.state_dict())
    assert set(module.objectives(make_batch(), SEPARATING).terms) == {"mse"}
    total, terms = module.objectives(make_batch(), DETECTING)
    assert set(terms) == {"mse", "own"} and float(total) == pytest.approx(
        20 * float(terms["mse"]) + float(terms["own"])
    )
    total.backward()
    assert all(p.grad is None for p in module.system.detector.parameters())
    assert module.system.mask_network.condition.weight.grad.abs().sum() > 0
    for name, value in module.system.detector.state_dict().items():
        assert torch.equal(value, before[name])


def test_the_losses_of_the_paper_without_permutations(small_detector, make_batch):
    weights = LossConfig(mse=1.0, frame=0.0, own=1.0, deep_feature=1.0, weak=0.5, teacher=2.0)
    module = make_module(small_detector, weights, n_asked=10)
    batch = make_batch()
    total, terms = module.objectives(batch, DETECTING)
    assert set(terms) == {"mse", "own", "deep_feature", "weak", "teacher"}
    assert float(total) == pytest.approx(sum(getattr(weights, name) * float(terms[name]) for name in terms), rel=1e-5)
    assert float(terms["teacher"]) == 0  # the teacher begins as the student
    system, weak = module.system, batch.weak
    system.separates_all = True
    own = system.analyse(module.objectives.mel(weak.waveform)).sources.clip.diagonal(dim1=1, dim2=2)
    wanted = losses.binary_cross_entropy(own, weak.labels)
    assert float(terms["weak"]) == pytest.approx(float(wanted), rel=1e-4)
    with torch.no_grad():
        for parameter in module.teacher.parameters():
            parameter.add_(0.1)
    total, terms = module.objectives(batch, DETECTING)
    assert float(terms["teacher"]) > 0
    total.backward()
    assert all(p.grad is None for p in module.teacher.parameters())


def test_the_deep_features_of_true_images_cost_nothing(small_detector, make_batch, monkeypatch):
    module = make_module(small_detector, LossConfig(mse=0.0, frame=0.0, own=0.0, deep_feature=1.0))
    system, objectives = module.system, module.objectives
    batch = make_batch().strong

    def perfect(mixture_mel, condition, asked, mask_network=None, waveform=None):
        images = objectives.images(batch)[2]
        targets = losses.class_images(images, batch.labels, asked) + system.mask_floor * mixture_mel[:, None]
        return Separation(targets, system.mixture_features(targets))

    monkeypatch.setattr(system, "separate_classes", perfect)
    terms = objectives.mixture_terms(batch, DETECTING)
    assert float(terms["deep_feature"]) == 0 == float(terms["mse"])


def test_a_step_is_a_function_of_seed_and_step(small_detector, make_batch):
    batch = make_batch()

    def loss(module: TaskAwareModule) -> float:
        module.on_train_batch_start(batch, 0)
        return float(module.objectives(batch, DETECTING).total)

    first, again, other = (make_module(small_detector, n_asked=8, seed=seed) for seed in (3, 3, 4))
    torch.manual_seed(99)
    assert loss(first) == loss(again) != loss(other)


def test_native_and_reference_operators_agree(small_detector, make_batch):
    found = []
    for backend in ("native", "reference"):
        module = make_module(small_detector)
        module.system.backend = module.system.mask_network.backend = module.system.detector.backend = backend
        torch.manual_seed(5)
        total, _ = module.objectives(make_batch(), DETECTING)
        total.backward()
        found.append((total.detach(), module.system.mask_network.mask[1].weight.grad))
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-5)


def test_the_gain_is_that_of_separated_waveforms(small_detector, make_batch):
    measured = make_module(small_detector).measure(make_batch().strong)
    assert set(measured) == {"sdr_gain"} and measured["sdr_gain"].isfinite()


def test_si_sdr_by_hand():
    reference = torch.tensor([1.0, -1.0, 1.0, -1.0])
    noise = torch.tensor([1.0, 1.0, -1.0, -1.0])  # orthogonal
    ratio = losses.si_sdr(torch.stack([3 * reference + 0.3 * noise, noise]), reference)
    assert float(ratio[0]) == pytest.approx(20.0, abs=1e-3) and float(ratio[1]) < -60


@pytest.mark.parametrize(
    ("separator", "weights", "message"),
    [
        ({"sources": "classes", "merge": "max"}, {"frame": 0.0, "own": 1.0}, "give own or own_average"),
        ({"sources": "free", "merge": "own"}, {}, "give max, average, noisy_or or mean"),
        ({"sources": "classes", "merge": "own"}, {"weak": 1.0}, "losses.frame cannot be trained"),
        ({"sources": "free"}, {"own": 1.0}, "losses.own cannot be trained with separator.sources=free"),
        ({"sources": "free", "slots_per_class": 2}, {}, "slots_per_class is 2, but free sources have no classes"),
        ({"sources": "classes", "slots_per_class": 7}, {"frame": 0.0}, "5 with 7 slots for each class, 35 sources"),
    ],
)
def test_what_does_not_apply_is_refused(separator, weights, message):
    with pytest.raises(ValueError, match=message):
        check_sources(TrainConfig(separator=SeparatorConfig(**separator), losses=LossConfig(**weights)))


def test_the_recipe_trains_and_its_checkpoint_is_scored(tiny_corpus, tmp_path, capsys, short_steps):
    train.main(["--config=builtin", f"--data={tiny_corpus}", f"--detector={BUILTIN_DETECTOR}", "--fast-dev-run",
                "--accelerator=cpu", f"--out={tmp_path}", *short_steps])  # fmt: skip
    assert "SI-SDR" in capsys.readouterr().out and (tmp_path / "separation.png").is_file()
    evaluate.main([str(tmp_path / "separator.safetensors"), f"--data={tiny_corpus}", "--accelerator=cpu"])
    assert "with separation" in capsys.readouterr().out
