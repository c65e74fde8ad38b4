#!/usr/bin/env bash
# SIGTERM, by which batch systems end jobs, while Lightning trains.
#
# One would expect: the process ends with status 143 or another that is not 0, so that whoever waits for it knows.
# What happens: `Trainer.fit` raises SystemExit without a code, and the process ends with status 0, like one that has
#   trained to its end. What comes after `fit` in the script has not run.
# Seen with lightning 2.6.0 and torch 2.13.0, 2026-11-28.
#
# Needs a network and three minutes; exits with status 1 if this is no longer the case.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "lightning==${LIGHTNING:-2.6.0}" "torch==${TORCH:-2.13.0}" numpy

cd "$folder"
cat >train.py <<'PYTHON'
import os
import signal

import torch
from lightning import LightningModule, Trainer


class Model(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, index):
        if index == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return (self.weight - batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


data = torch.utils.data.DataLoader(torch.arange(1000.0))
Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False).fit(Model(), data)
print("trained to the end")
PYTHON
status=0
"$folder/venv/bin/python" train.py >out.txt 2>err.txt || status=$?
echo "status $status; $(grep -c 'trained to the end' out.txt || true) lines after the training"
((status == 0)) && ! grep -q 'trained to the end' out.txt
