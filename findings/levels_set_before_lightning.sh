#!/usr/bin/env bash
# Levels of Python's logging that are set before Lightning is imported.
#
# One would expect: whoever sets the level of the logger `lightning.pytorch` to WARNING hears no more of GPUs, TPUs and
#   tips, wherever in the program that line stands; and each message comes once.
# What happens: importing Lightning sets the level back to INFO, and adds a handler of its own to the logger above.
#   Where the program has one, too, each message comes twice. A command that imports Lightning late, to start fast, is
#   loud again.
# Seen with lightning 2.6.0 and 2.6.6, torch 2.13.0 and 2.14.1, 2026-11-28.
#
# Needs a network and three minutes; exits with status 1 if this is no longer the case.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "lightning==${LIGHTNING:-2.6.0}" "torch==${TORCH:-2.13.0}" numpy

cd "$folder"
cat >quiet.py <<'PYTHON'
import logging
import sys

logging.basicConfig(level=logging.INFO, format="%(message)s")


def be_quiet():
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


if sys.argv[1] == "before":
    be_quiet()
from lightning import Trainer  # noqa: E402

if sys.argv[1] == "after":
    be_quiet()
Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
PYTHON
for moment in before after; do
  "$folder/venv/bin/python" quiet.py "$moment" >"$moment.txt" 2>&1
  echo "level set $moment the import: $(grep -c 'GPU available' "$moment.txt" || true) lines about GPUs"
done
[[ $(grep -c 'GPU available' before.txt) == 2 ]] && ! grep -q 'GPU available' after.txt
