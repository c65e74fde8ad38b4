#!/usr/bin/env bash
# The median filter of sed_scores_eval, at the end of a clip.
#
# One would expect: a sound that lasts to the end of the clip stays, as with the filters of SciPy, which the published
#   baselines use.
# What happens: outside of the clip the scores are taken for minus infinity, so that the last half filter length is
#   outvoted. A sound of the last 0.3 s disappears under a filter of 0.7 s.
# Seen with sed_scores_eval 0.0.4, 2026-11-28.
#
# Needs a network and a minute; exits with status 1 if this is no longer the case.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "sed_scores_eval==${SED_SCORES_EVAL:-0.0.4}" "setuptools<81"

cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
from scipy.ndimage import median_filter
from sed_scores_eval.base_modules.postprocessing import medfilt
from sed_scores_eval.base_modules.scores import create_score_dataframe

scores = np.zeros((100, 1))
scores[-3:] = 1.0  # 0.3 s, in frames of 0.1 s
times = np.round(np.arange(101) * 0.1, 6)
clips = {"clip": create_score_dataframe(scores, times, ["Dog"])}
theirs = medfilt(clips, 0.7)["clip"]["Dog"].to_numpy()
scipys = median_filter(scores[:, 0], 7, mode="reflect")
found = {"sed_scores_eval": int((theirs > 0.5).sum()), "SciPy": int((scipys > 0.5).sum())}
for name, frames in found.items():
    print(f"{name}: {frames} of 3 frames of the sound at the end are left")
sys.exit(found != {"sed_scores_eval": 0, "SciPy": 3})
PYTHON
