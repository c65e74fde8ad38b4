#!/usr/bin/env bash
# Raven's selection tables, read by crowsetta: one with whole numbers of Hz, as BirdNET-Analyzer writes them, and one of
# two recordings that were opened one after the other.
#
# One would expect: selections, at their times in the recording that the table names.
# What happens: whole numbers of Hz are an error, from a check of types that takes 15000 for another type than 15000.0.
#   Of two recordings, `to_bbox` gives the times from the beginning of the first one (13 s of a recording of 10 s), and
#   leaves out what tells the recording and the time in it ("Begin File", "File Offset (s)").
# Seen with crowsetta 5.1.2, pandas 2.3.3, pandera 0.35.0, 2026-11-28.
#
# Needs a network and a minute; exits with status 1 if this is no longer the case.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "crowsetta==${CROWSETTA:-5.1.2}" "pandas==2.3.3" "pandera==0.35.0"

cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")
from crowsetta.formats.bbox import Raven  # noqa: E402

COLUMNS = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)"


def boxes(columns, row, label):
    Path("a.txt").write_text(f"{COLUMNS}\t{columns}\n1\tSpectrogram 1\t1\t{row}\n")
    return [(float(box.onset), float(box.offset)) for box in Raven.from_file("a.txt", annot_col=label).to_bbox()]


try:
    whole = str(boxes("Common Name\tConfidence", "3.0\t6.0\t0\t15000\tTawny Owl\t0.9", "Common Name"))
except Exception as error:
    whole = f"{type(error).__name__}: {str(error).splitlines()[0]}"
second = boxes("Begin File\tFile Offset (s)\tAnnotation", "13.0\t14.0\t0.5\t900.5\tb.wav\t3.0\tDog", "Annotation")
print(f"whole numbers of Hz: {whole}")
print(f"a selection at 3 s of the second recording, which begins at 10 s: {second}")
sys.exit("SchemaError" not in whole or second != [(13.0, 14.0)])
PYTHON
