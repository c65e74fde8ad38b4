"""No recording is on both sides of a split, whatever the folds say."""

from pathlib import Path

import pytest

from task_aware.importing.items import Item
from task_aware.importing.splitting import classes, hold_out


def item(name, label, group="", fold=""):
    return Item(Path(name), name, (label,), None, group, fold)


def sides(items, key):
    held = hold_out(items)
    return ({key(x) for x in items if x.name in held}, {key(x) for x in items if x.name not in held})


@pytest.mark.parametrize("folds", [False, True])
def test_cuts_of_one_recording_are_on_one_side(folds):
    items = [
        item(f"{label}{k}", label, group=str(k // 3 + 100 * number), fold=str(k % 5 + 1) if folds else "")
        for number, label in enumerate("abcdef")
        for k in range(30)
    ]
    held, trained = sides(items, lambda x: x.group)
    assert held and trained and not held & trained
    of_held, _ = sides(items, lambda x: x.labels[0])
    assert of_held == set("abcdef")


def test_the_last_fifth_of_the_folds_is_held_out():
    items = [item(f"{label}{k}", label, fold=str(k % 10 + 1)) for label in "ab" for k in range(20)]
    assert sides(items, lambda x: x.fold)[0] == {"9", "10"}
    named = [item(f"{label}{k}", label, fold="val" if k % 4 == 0 else "train") for label in "ab" for k in range(20)]
    assert sides(named, lambda x: x.fold) == ({"val"}, {"train"})


def test_folds_that_leave_classes_on_one_side_are_drawn_anew():
    items = [item(f"{label}{k}", label, group=f"{label}{k}", fold="2" if label == "a" and k == 0 else "1")
             for label in "abcdefgh" for k in range(10)]  # fmt: skip
    assert sides(items, lambda x: x.labels[0])[0] == set("abcdefgh")


def test_a_class_of_one_recording_is_trained_and_five_give_one_to_score_on():
    items = [item(f"a{k}", "a", group="one") for k in range(9)] + [item(f"b{k}", "b") for k in range(5)]
    held = hold_out(items)
    assert len(held) == 1 and held < {f"b{k}" for k in range(5)}
    assert classes(items[0]) == {"a"}
