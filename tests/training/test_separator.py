import copy
import json
import signal

import pytest
import torch

from task_aware import train
from task_aware.base.errors import CheckpointError
from task_aware.models.opening import BUILTIN_DETECTOR
from task_aware.training.config import LossConfig, OptimiserConfig
from task_aware.training.folder import read_history
from task_aware.training.objectives import split
from task_aware.training.schedule import update_average, warmup
from task_aware.training.separator import TaskAwareModule


def make_module(separator, **weights) -> TaskAwareModule:
    module = TaskAwareModule(separator, LossConfig(**weights), OptimiserConfig(separation_share=0.0, anchor_share=0.0))
    module.log = module.log_dict = lambda *_, **__: None  # no trainer here
    return module


def test_the_total_is_the_weighted_sum_of_its_terms(small_separator, make_batch):
    batch = make_batch()
    terms = {}
    for name in ("mse", "deep_feature", "weak", "teacher", "frame"):
        only = dict.fromkeys(("mse", "deep_feature", "weak", "teacher", "frame"), 0.0) | {name: 1.0}
        module = make_module(small_separator, **only)
        with torch.no_grad():
            for weight in module.teacher.parameters():
                weight.add_(0.05)  # a teacher that differs
        terms[name] = float(module.training_step(batch, 0).detach())
    weights = {"mse": 1.0, "deep_feature": 0.5, "weak": 0.25, "teacher": 2.0, "frame": 0.75}
    module = make_module(small_separator, **weights)
    with torch.no_grad():
        for weight in module.teacher.parameters():
            weight.add_(0.05)
    assert all(value > 0 for value in terms.values())
    expected = sum(weights[name] * value for name, value in terms.items())
    assert float(module.training_step(batch, 0).detach()) == pytest.approx(expected, rel=1e-5)


def test_gradients_reach_the_mask_network_alone(small_separator, make_batch):
    module = make_module(small_separator)
    before = copy.deepcopy(small_separator.detector.state_dict())
    module.training_step(make_batch(), 0).backward()
    idle = set(small_separator.mask_network.blocks[-1].residual.parameters())  # nothing reads the last trunk
    assert all(p.grad is not None for p in small_separator.mask_network.parameters() if p not in idle)
    assert all(p.grad is None for p in module.teacher.parameters())
    assert all(p.grad is None for p in small_separator.detector.parameters())
    optimised = module.configure_optimizers()["optimizer"].param_groups[0]["params"]
    assert {id(p) for p in optimised} == {id(p) for p in small_separator.mask_network.parameters()}
    for name, value in small_separator.detector.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("frames", [(16, 16), (16, 24)])
def test_batches_are_separated_and_detected_as_they_are_alone(small_separator, monkeypatch, frames):
    small_separator.backend = "native"
    module = make_module(small_separator)
    n_mels = small_separator.detector.feature_config.n_mels
    mixtures = {name: torch.rand(2 + k, n_mels, frames[k]) for k, name in enumerate("ab")}
    alone = {name: small_separator.separate(mel) for name, mel in mixtures.items()}
    heard = {name: small_separator.detect_sources(sources.features) for name, sources in alone.items()}
    calls = []
    for function in ("separate", "detect_sources"):
        plain = getattr(small_separator, function)
        monkeypatch.setattr(small_separator, function, lambda x, plain=plain, **_: calls.append(len(x)) or plain(x))
    waveforms = {name: torch.zeros(len(mel), mel.shape[-1]) for name, mel in mixtures.items()}
    together = module.objectives.separate(mixtures, waveforms)
    detections = module.objectives.detect({name: sources.features for name, sources in together.items()})
    assert calls == ([5, 5] if frames == (16, 16) else [2, 3, 2, 3])
    for name in "ab":
        torch.testing.assert_close(tuple(together[name]), tuple(alone[name]))
        torch.testing.assert_close(tuple(detections[name]), tuple(heard[name]))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_of_parts_have_the_layout_of_the_whole(layout):
    x = torch.randn(5, 4, 3, 6).contiguous(memory_format=layout).requires_grad_()
    seen = []
    whole = x * 1
    whole.register_hook(lambda grad: seen.append(grad.is_contiguous(memory_format=layout)))
    first, rest = split(whole, [2, 3])
    assert torch.equal(torch.cat([first, rest]), x)
    first.sum().backward()
    assert seen == [True] and torch.equal(x.grad, torch.cat([torch.ones(2, 4, 3, 6), torch.zeros(3, 4, 3, 6)]))


def test_images_are_what_the_sources_sound_like_in_their_room(small_separator, make_batch):
    module = make_module(small_separator)
    batch = make_batch().strong
    mixture, mixture_mel, images = module.objectives.images(batch)
    front_end = small_separator.detector.feature_config
    torch.testing.assert_close(mixture.mixture, batch.sources.sum(1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        mixture_mel, front_end.mel(batch.sources.sum(1), backend="reference"), atol=1e-4, rtol=1e-3
    )
    torch.testing.assert_close(images, front_end.mel(batch.sources, backend="reference"), atol=1e-4, rtol=1e-3)


def test_the_relative_loss_is_one_for_a_denoiser(small_separator, make_batch, monkeypatch):
    module = make_module(small_separator)
    batch = make_batch().strong
    separate = small_separator.separate

    def denoise(mel, mask_network=None, **_):
        estimates = (0.02 * mel[:, None]).repeat(1, 3, 1, 1)
        estimates[:, 0] += mel  # the mixtures have no background: they are their own clean sum
        return separate(mel)._replace(mel=estimates)

    monkeypatch.setattr(small_separator, "separate", denoise)
    measured = module.measure(batch)
    assert float(measured["relative_loss"]) == pytest.approx(1.0, rel=1e-4)
    assert float(measured["slot_1_energy"]) > 0.99


def test_separation_is_not_measured_where_there_is_nothing_to_separate(small_separator, make_batch):
    """A mixture of one event: a denoiser is perfect, and an error relative to its error has no meaning."""
    module = make_module(small_separator)
    batch = make_batch().strong
    both = {name: float(value) for name, value in module.measure(batch).items()}
    silent = torch.tensor([[1.0], [0.0], [0.0]])
    alone = batch._replace(sources=batch.sources * silent, labels=torch.tensor([[0, -1, -1]]).expand(2, 3))
    measured = module.measure(alone)
    assert float(measured["relative_loss"]) == 1 and float(measured["spread"]) == 0
    joined = type(batch)(*(torch.cat(pair) for pair in zip(batch, alone, strict=True)))
    measured = module.measure(joined)
    assert float(measured["relative_loss"]) == pytest.approx(both["relative_loss"], rel=1e-4)
    assert float(measured["spread"]) == pytest.approx(both["spread"], rel=1e-4)


def test_warmup_is_the_exponential_ramp():
    assert warmup(0, 10) == pytest.approx(0.006738, rel=1e-3)
    assert warmup(5, 10) == pytest.approx(0.286505, rel=1e-3)
    assert warmup(10, 10) == warmup(99, 10) == warmup(0, 0) == 1.0


@pytest.mark.parametrize(("share", "first"), [(0.0, 0), (0.4, 4), (1.0, 10)])
def test_the_rate_falls_over_each_stage(small_separator, share, first):
    schedule = OptimiserConfig(
        max_steps=10,
        warmup_steps=0,
        learning_rate=2.0,
        task_learning_rate=1.0,
        separation_share=share,
        anchor_share=0.0,
    )
    configured = TaskAwareModule(small_separator, LossConfig(), schedule).configure_optimizers()
    rates = []
    for _ in range(schedule.max_steps):
        rates.append(configured["optimizer"].param_groups[0]["lr"])
        configured["optimizer"].step()
        configured["lr_scheduler"]["scheduler"].step()  # as Lightning does, after the last step too
    assert configured["optimizer"].param_groups[0]["lr"] == 0
    for stage, largest in ((rates[:first], 2.0), (rates[first:], 1.0 if first else 2.0)):
        assert stage[:1] in ([], [largest]) and stage == sorted(stage, reverse=True) and all(stage)


def test_the_mean_teacher_s_decay_grows_to_its_largest():
    average, current = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        average.weight.fill_(1.0)
        current.weight.fill_(0.0)
    update_average(average, current, 0, 0.999)
    assert float(average.weight.detach()) == 0.0  # the first step copies
    with torch.no_grad():
        average.weight.fill_(1.0)
    update_average(average, current, 10_000, 0.999)
    assert float(average.weight.detach()) == pytest.approx(0.999)


SMALL = [
    "--batch.strong_seconds=2",
    "--batch.real_seconds=3",
    "--batch.strong=2",
    "--batch.weak=1",
    "--batch.unlabelled=1",
    "--optimiser.separation_strong=2",
    "--optimiser.warmup_steps=4",
    "--accelerator=cpu",
]


ALL_TERMS = [f"--losses.{name}=1" for name in ("mse", "deep_feature", "weak", "teacher", "own")]


def run(corpus, out, *options: str) -> dict:
    train.main([f"--data={corpus}", f"--detector={BUILTIN_DETECTOR}", f"--out={out}", *SMALL, *options])
    return json.loads((out / "metrics.json").read_text())


def weights(out) -> dict[str, torch.Tensor]:
    from task_aware.base import checkpoint

    return checkpoint.read(out / "separator.safetensors", "separator")[0]


def test_ctrl_c_ends_a_run_as_any_other_command(tiny_corpus, tmp_path, monkeypatch):
    def interrupted(module, batch, batch_idx):
        raise KeyboardInterrupt  # which Lightning turns into an exit with status 1, and SIGINT is then ignored

    monkeypatch.setattr(TaskAwareModule, "training_step", interrupted)
    handler = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(tiny_corpus, tmp_path, "--max-steps=2")
    finally:
        signal.signal(signal.SIGINT, handler)


def test_a_killed_and_resumed_run_ends_with_the_same_weights(tiny_corpus, tmp_path, monkeypatch):
    options = (
        "--max-steps=6",
        "--optimiser.steps_per_epoch=2",
        "--optimiser.separation_share=0.5",
        "--no-fused",
    )
    run(tiny_corpus, tmp_path / "whole", *options)
    step = TaskAwareModule.training_step

    def killed(module, batch, batch_idx):
        if module.global_step == 5:
            raise RuntimeError("killed")
        return step(module, batch, batch_idx)

    monkeypatch.setattr(TaskAwareModule, "training_step", killed)
    with pytest.raises(RuntimeError, match="killed"):
        run(tiny_corpus, tmp_path / "resumed", *options)
    monkeypatch.setattr(TaskAwareModule, "training_step", step)
    with pytest.raises(CheckpointError, match="seed was 0 and is 1"):
        run(tiny_corpus, tmp_path / "resumed", *options, "--resume", "--seed=1")
    run(tiny_corpus, tmp_path / "resumed", *options, "--resume")
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "resumed")
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_fused_and_reference_operators_log_the_same_losses(tiny_corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("task_aware.training.loop.LOG_EVERY", 1)
    options = ["--max-steps=20", "--optimiser.separation_share=0.5", "--optimiser.anchor_share=0.2", *ALL_TERMS]
    options += ["--optimiser.warmup_steps=50"]  # the default: the first steps are small
    curves = []
    for flag in ("--fused", "--no-fused"):
        run(tiny_corpus, tmp_path / flag, *options, flag)
        curves.append(read_history(tmp_path / flag))
    fused, reference = curves
    assert fused.keys() == reference.keys() >= {"train/mse", "train/deep_feature", "train/weak", "train/teacher"}
    for name, curve in fused.items():
        assert [step for step, _ in curve] == [step for step, _ in reference[name]]
        assert [x for _, x in curve] == pytest.approx([x for _, x in reference[name]], rel=1e-4, abs=1e-6), name
    assert len(fused["train/mse"]) == 20
