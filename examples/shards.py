"""Shares a folder of recordings among the processes of torchrun, one per GPU if there are any.

torchrun --nproc-per-node 8 examples/shards.py separator.safetensors FOLDER OUT

Each process analyses its part of the files; with `--skip-existing`, an interrupted job continues where it stopped.
Afterwards

python -m task_aware.infer separator.safetensors FOLDER --out OUT --skip-existing

finds all recordings done and joins their events into OUT/events.tsv.
"""

import os
import sys

import torch

from task_aware import infer


def main(checkpoint: str, folder: str, out: str) -> None:
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = f"cuda:{os.environ['LOCAL_RANK']}" if torch.cuda.is_available() else "cpu"
    part = f"--shard={rank + 1}/{world_size}"
    infer.main([checkpoint, folder, f"--out={out}", part, f"--device={device}", "--skip-existing"])


if __name__ == "__main__":
    main(*sys.argv[1:])
