#!/usr/bin/env bash
# Macro event F1 by sed_eval, of a detector that misses a class altogether.
#
# One would expect: the class counts 0, as in the paper's formula and in scikit-learn's default.
# What happens: a class with reference events and no detection has F1 = nan, and the class-wise average leaves it out. A
#   detector that never says Dog scores better than one that says it once, wrongly.
# Seen with sed_eval 0.2.1 and dcase_util 0.2.20, 2026-11-28.
#
# Needs a network and two minutes; exits with status 1 if this is no longer the case.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "setuptools<81" wheel
"$folder/venv/bin/pip" install --quiet "sed_eval==${SED_EVAL:-0.2.1}" dcase_util==0.2.20

cd "$folder"
"$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import sys

import dcase_util
import sed_eval


def macro(estimated):
    def events(rows):
        names = ("filename", "onset", "offset", "event_label")
        return dcase_util.containers.MetaDataContainer([dict(zip(names, ("a.wav", *row))) for row in rows])

    metrics = sed_eval.sound_event.EventBasedMetrics(["Cat", "Dog"], t_collar=0.2, percentage_of_length=0.2)
    metrics.evaluate(events([(1.0, 2.0, "Cat"), (4.0, 5.0, "Dog")]), events(estimated))
    return metrics.results_class_wise_average_metrics()["f_measure"]["f_measure"]


silent = macro([(1.0, 2.0, "Cat")])
wrong = macro([(1.0, 2.0, "Cat"), (8.0, 9.0, "Dog")])
print(f"macro F1 of a detector that never finds the dog: {silent:.2f}; that finds it at a wrong time: {wrong:.2f}")
sys.exit(not (silent == 1.0 and wrong == 0.5))
PYTHON
