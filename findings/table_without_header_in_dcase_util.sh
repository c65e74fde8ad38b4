#!/usr/bin/env bash
# An event table without a header, as DCASE's tasks hand them out, in a file that ends in .csv.
#
# One would expect: all of its events, as from the same table in a .txt file, or an error.
# What happens: the first event becomes the names of the columns, and the others have no onset, offset or label; there is
#   no error. Metrics then count no reference events at all.
# Seen with dcase_util 0.2.20, 2026-11-28.
#
# Needs a network and two minutes; exits with status 1 if this is no longer the case.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "setuptools<81" wheel
"$folder/venv/bin/pip" install --quiet "dcase_util==${DCASE_UTIL:-0.2.20}"

cd "$folder"
"$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import sys
from pathlib import Path

from dcase_util.containers import MetaDataContainer

rows = [("0.5", "1.5", "Dog"), ("2.0", "3.0", "Cat"), ("4.0", "5.0", "Dog")]
found = {}
for name, separator in (("events.txt", "\t"), ("events.csv", ",")):
    Path(name).write_text("".join(separator.join(row) + "\n" for row in rows))
    events = MetaDataContainer(filename=name).load()
    found[name] = sum(event.onset is not None and event.event_label is not None for event in events)
    print(f"{name}: {len(events)} rows, {found[name]} of them events with a time and a label")
sys.exit(not (found["events.txt"] == 3 and found["events.csv"] == 0))
PYTHON
