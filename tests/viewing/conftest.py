"""Folders of results to show, made without networks, and a browser to show them in."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from task_aware.data.audio import write_audio
from task_aware.data.labels import Event
from task_aware.models.features import FeatureConfig
from task_aware.viewing.recordings import Place, write_recording

RATE = 16000

#: The detector alone misses one event.
EVENTS = [Event(0.5, 1.5, "Dog"), Event(2.0, 3.0, "Cat"), Event(2.5, 3.5, "Dog")]


def tone(hertz: float, seconds: float) -> np.ndarray:
    return (0.2 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def add_recording(root: Path, name: str, stem: str, seconds: float = 4.0) -> Place:
    """A recording of two tones, which are its sources Dog (400 Hz) and Cat (1600 Hz)."""
    sources = {"Dog": tone(400, seconds), "Cat": tone(1600, seconds)}
    paths = {label: root / "audio" / f"{stem}.{label}.flac" for label in sources}
    place = Place(root, root / "view" / f"{stem}.js", root / "audio" / f"{stem}.mixture.flac")
    (root / "audio").mkdir(parents=True, exist_ok=True)
    for label, samples in sources.items():
        write_audio(paths[label], samples, RATE)
    blocks = np.array_split(sources["Dog"] + sources["Cat"], 5)
    rows = {"detector alone": EVENTS[:1], "with separation": EVENTS}
    write_recording(place, name, blocks, paths, rows, seconds=seconds, front_end=FeatureConfig())
    return place


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium, which notes what it requests and complains about."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("no chromium and chromedriver here (on Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "window-size=1300,900"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    opened.set_script_timeout(120)
    yield opened
    opened.quit()
