"""Times live detection chunk by chunk: each kind of model alone, then several streams at once.

    python -m benchmarks.live [--chunks 1200] [--streams 8] [--only alone together]

Models have the sizes of the recipe `causal_builtin` and random weights, and hear noise in chunks of 100 ms, on one
thread. Alone, models take turns every ten seconds of sound, each chunk pushed as soon as the one before is done.
Together, each stream is a process of its own, as with one `python -m task_aware.listen` for each microphone. Its chunks
come in real time, those of different streams in turn, and latency counts from when a chunk is complete until it has
been heard: a stream that falls behind shows as a latency that grows.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml

from .measuring import resident

if TYPE_CHECKING:
    from task_aware.inference.live import LiveDetector

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 0.1
WARM_UP = 100
#: Chunks for which a model is timed before it is the next one's turn.
TURN = 100
MODELS = {
    "free": "separator of five free sources, and detector",
    "classes": "separator of ten classes, conditioned, and detector",
    "detector": "detector alone",
}


def make(kind: str) -> LiveDetector:
    """A live detector with random weights, of the sizes of the recipe `causal_builtin`."""
    import torch

    from task_aware.data.labels import DESED_CLASSES
    from task_aware.inference.live import LiveDetector
    from task_aware.models.condition import condition_size
    from task_aware.models.crnn import CRNN
    from task_aware.models.separator import MaskNetwork, preset
    from task_aware.models.system import ClassSeparator, Separator

    torch.manual_seed(0)
    recipe = ROOT / "task_aware/recipes/detector_causal_builtin.yaml"
    sizes = yaml.safe_load(recipe.read_text(encoding="utf-8"))["training"]
    description = {"architecture": "crnn", "labels": [*DESED_CLASSES], **{k: sizes[k] for k in ("crnn", "features")}}
    detector = CRNN.from_description(description, recipe)
    detector.mean.fill_(-30.0)
    detector.std.fill_(15.0)
    if kind == "detector":
        return LiveDetector(detector.eval())
    n_mels = detector.feature_config.n_mels
    if kind == "free":
        network = MaskNetwork(preset("small", n_mels=n_mels, n_sources=5, causal=True))
        return LiveDetector(Separator(network, detector).eval())
    of_classes = preset("small", n_mels=n_mels, n_sources=len(DESED_CLASSES), causal=True)
    network = MaskNetwork(replace(of_classes, conditioning=condition_size(detector)))
    return LiveDetector(ClassSeparator(network, detector, merge="own_average").eval())


def sound(live: LiveDetector) -> np.ndarray:
    """Ten seconds of noise, in chunks `[100, n]`."""
    n_samples = round(SECONDS * live.sample_rate)
    return 0.1 * np.random.default_rng(0).standard_normal((TURN, n_samples)).astype(np.float32)


def alone(kinds: list[str], n_chunks: int) -> None:
    """Prints what a chunk takes in each model."""
    import torch

    torch.set_num_threads(1)
    streams = {kind: make(kind) for kind in kinds}
    n_turns = -(-n_chunks // TURN) + 1
    taken = {kind: np.zeros((n_turns, TURN, 2)) for kind in kinds}
    memory = []
    for turn in range(n_turns):
        for kind, live in streams.items():
            for k, chunk in enumerate(sound(live)):
                start, processor = time.perf_counter(), time.process_time()
                live.push(chunk)
                taken[kind][turn, k] = time.perf_counter() - start, time.process_time() - processor
        memory.append(resident("VmRSS") / 1024)
    print(f"resident memory: {memory[0]:.1f} MiB after the first turns, then at most {max(memory[1:]):.1f}")
    print("\n| model | time of | fastest | median | 99th percentile | real-time factor |\n|---|---|---|---|---|---|")
    for kind in kinds:
        for name, times in zip(("clock", "processor"), 1000 * taken[kind][1:].reshape(-1, 2).T, strict=True):
            least, half, most = np.percentile(times, (0, 50, 99))
            factor = times.mean() / 1000 / SECONDS
            print(f"| {MODELS[kind]} | {name} | {least:.1f} ms | {half:.1f} ms | {most:.1f} ms | {factor:.3f} |")


def listen(kind: str, n_chunks: int, delay: float) -> None:
    """Hears one stream in real time, once the parent process says when to start; prints what was measured as JSON."""
    import torch

    torch.set_num_threads(1)
    live = make(kind)
    chunks = sound(live)
    for k in range(WARM_UP):
        live.push(chunks[k % TURN])
    print("ready", flush=True)
    start = float(sys.stdin.readline()) + delay
    latency, memory = np.empty(n_chunks), []
    processor = time.process_time()
    for k in range(n_chunks):
        complete = start + (k + 1) * SECONDS
        time.sleep(max(0.0, complete - time.monotonic()))
        live.push(chunks[k % TURN])
        latency[k] = time.monotonic() - complete
        if k + 1 in (n_chunks // 4, n_chunks):
            memory.append(resident("VmRSS") / 1024)
    processor = (time.process_time() - processor) / n_chunks
    print(json.dumps({"latency": latency.tolist(), "processor": processor, "memory": memory}))


def together(kind: str, n_streams: int, n_chunks: int) -> None:
    """Prints how late the chunks of streams that run at the same time are heard."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.live", "--here", f"--chunks={n_chunks}", f"--models={kind}"]
    processes = [
        subprocess.Popen(
            [*command, f"--delay={k * SECONDS / n_streams}"], cwd=ROOT, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for k in range(n_streams)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None and process.stdin is not None
        if process.stdout.readline() != "ready\n":
            raise SystemExit("a stream ended before it began; its error is above")
    start = time.monotonic() + 1.0
    for process in processes:
        process.stdin.write(f"{start}\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
    found = [json.loads(process.communicate()[0]) for process in processes]
    print("| stream | median latency | 99th percentile | largest | last | processor time | MiB, a quarter | all |")
    print("|---|---|---|---|---|---|---|---|")
    for k, one in enumerate(found):
        late = 1000 * np.array(one["latency"])
        half, most, largest = np.percentile(late, (50, 99, 100))
        quarter, end = one["memory"]
        print(
            f"| {k + 1} | {half:.1f} ms | {most:.1f} ms | {largest:.1f} ms | {late[-1]:.1f} ms "
            f"| {1000 * one['processor']:.1f} ms | {quarter:.1f} | {end:.1f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--models", nargs="+", choices=list(MODELS), default=list(MODELS), metavar="MODEL",
        help=f"{', '.join(MODELS)}; default: all")  # fmt: skip
    add("--chunks", type=int, default=1200, help="chunks of 100 ms for each stream; default: 1200, two minutes")
    add("--streams", type=int, default=8, help="streams at once; default: 8")
    add("--only", nargs="+", choices=["alone", "together"], default=["alone", "together"], metavar="PART",
        help="alone, together; default: both")  # fmt: skip
    add("--here", action="store_true", help=argparse.SUPPRESS)
    add("--delay", type=float, default=0.0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.chunks < 4 or options.streams < 1:
        parser.error("give at least four chunks and one stream")
    if options.here:
        return listen(options.models[0], options.chunks, options.delay)
    print(f"{platform.machine()}, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}")
    if "alone" in options.only:
        print("\neach alone\n")
        alone(options.models, options.chunks)
    if "together" in options.only:
        for kind in options.models:
            print(f"\n{options.streams} at once: {MODELS[kind]}\n", flush=True)
            together(kind, options.streams, options.chunks)


if __name__ == "__main__":
    main()
