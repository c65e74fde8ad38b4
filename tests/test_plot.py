"""`python -m task_aware.plot`: a recording and its separated sources as a picture."""

from __future__ import annotations

import pytest
from matplotlib.image import imread

from task_aware import plot
from task_aware.base.errors import DataError
from task_aware.models.opening import BUILTIN_DETECTOR, BUILTIN_SEPARATOR


def test_the_plot_command(tiny_corpus, tmp_path, capsys):
    recording = sorted((tiny_corpus / "audio/validation").iterdir())[0]
    table = tiny_corpus / "metadata/validation/validation.tsv"
    pictures = []
    for name, options in (("short", ["--seconds=3"]), ("true", ["--seconds=3", f"--events={table}"])):
        path = tmp_path / f"{name}.png"
        plot.main([str(BUILTIN_SEPARATOR), str(recording), f"--out={path}", "--device=cpu", *options])
        pictures.append(imread(path))
    assert str(tmp_path / "short.png") in capsys.readouterr().out
    assert all(picture.shape[1] == 1404 for picture in pictures)
    assert pictures[0].shape != pictures[1].shape or (pictures[0] != pictures[1]).any()

    (tmp_path / "other.tsv").write_text("filename\tonset\toffset\tevent_label\nother.wav\t0\t1\tDog\n")
    with pytest.raises(DataError, match=f"has no row for {recording.name}"):
        plot.main([str(BUILTIN_SEPARATOR), str(recording), "--out=x.png", f"--events={tmp_path / 'other.tsv'}"])
    with pytest.raises(ValueError, match="is a detector, but plot needs a separator"):
        plot.main([str(BUILTIN_DETECTOR), str(recording), "--out=x.png"])
