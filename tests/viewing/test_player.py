"""The page in a real browser: what it requests, plays, silences and shows."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from task_aware.viewing import page, serving
from task_aware.viewing.page import write_page
from task_aware.viewing.serving import make_server

from .conftest import EVENTS, add_recording

#: Would run as a script, or become an element, if a name were ever taken for markup.
NAME = "</script><script>hacked=1</script><img src=x onerror=hacked=1>\"'&.wav"

#: Loudness of each track, as it comes out of its player.
METERS = """
if (!window.meters) {
  window.context = new AudioContext();
  window.meters = shown.tracks.map((track) => {
    const meter = context.createAnalyser();
    context.createMediaElementSource(track.audio).connect(meter);
    meter.connect(context.destination);
    return meter;
  });
  context.resume();
}
return meters.map((meter) => {
  const samples = new Float32Array(meter.fftSize);
  meter.getFloatTimeDomainData(samples);
  return Math.sqrt(samples.reduce((sum, value) => sum + value * value, 0) / samples.length);
});
"""


@pytest.fixture
def short(tmp_path) -> Path:
    """Two recordings, all in one file."""
    add_recording(tmp_path, NAME, "odd")
    add_recording(tmp_path, "plain.wav", "plain")
    write_page(tmp_path, {"plain.wav": EVENTS[1:], "of another folder.wav": EVENTS})
    return tmp_path


@pytest.fixture
def serve() -> Iterator[Callable[[Path], str]]:
    """Serves the page of a folder, and says where."""
    with ExitStack() as stack:

        def start(root: Path) -> str:
            server = stack.enter_context(make_server(root, 0))
            stack.callback(server.shutdown)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            return f"http://127.0.0.1:{server.server_port}/"

        yield start


def show(browser: Any, address: str) -> None:
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get("about:blank")
    browser.get(address)
    until(lambda: browser.execute_script("return Boolean(shown && shown.marks.length)"))


def until(happens: Callable[[], Any], seconds: float = 60.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := happens()):
        assert time.monotonic() < end, "it has not happened"
        time.sleep(0.1)
    return found


def press(browser: Any, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def seconds_of(browser: Any) -> float:
    return browser.execute_script("return shown.wave.getCurrentTime()")


def requests(browser: Any) -> list[str]:
    events = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    return [each["params"]["request"]["url"] for each in events if each["method"] == "Network.requestWillBeSent"]


def test_it_opens_from_disk_and_asks_for_nothing(browser, short):
    show(browser, (short / "index.html").as_uri())
    asked = [url for url in requests(browser) if not url.startswith(("data:", "about:"))]
    assert asked and {url.partition("#")[0] for url in asked} == {(short / "index.html").as_uri()}
    assert browser.get_log("browser") == []


def test_a_name_is_text_whatever_it_holds(browser, short):
    show(browser, (short / "index.html").as_uri())
    assert browser.execute_script("return document.getElementById('name').textContent") == NAME
    assert browser.execute_script("return [window.hacked ?? null, document.querySelectorAll('nav img').length]") == [
        None,
        0,
    ]
    texts = browser.execute_script("return [...document.querySelectorAll('#files a')].map((a) => a.firstChild.data)")
    assert sorted(texts) == sorted([NAME, "plain.wav"])


def test_rows_hold_the_events_that_they_are_named_for(browser, short):
    show(browser, (short / "index.html").as_uri() + "#plain.wav")
    heads = browser.execute_script("return [...document.querySelectorAll('#gutter strong')].map((each) => each.title)")
    assert heads == ["recording", "reference", "detector alone", "with separation", "Dog", "Cat"]
    spans = browser.execute_script("return shown.marks.map((each) => [each.start, each.end])")
    expected = [*EVENTS[1:], *EVENTS[:1], *EVENTS]
    assert spans == [[event.onset, event.offset] for event in expected]
    boxes = browser.execute_script(
        "return shown.marks.map(({element}) => { const box = element.getBoundingClientRect();"
        "return [box.left, box.right, box.top, box.bottom]; })"
    )
    for index, (left, right, top, bottom) in enumerate(boxes):  # none hides another, and all are seen
        assert right - left > 50
        for other_left, other_right, other_top, other_bottom in boxes[:index]:
            apart = right <= other_left + 1 or other_right <= left + 1
            assert apart or bottom <= other_top or other_bottom <= top


@pytest.mark.parametrize("way", ["disk", "server"])
def test_a_click_plays_and_solo_silences_the_others(browser, short, way, serve, monkeypatch):
    if way == "disk":  # sound that lies beside the page cannot be measured there: browsers hide it from scripts
        show(browser, (short / "index.html").as_uri() + "#plain.wav")
    else:
        monkeypatch.setattr(page, "INLINE_BYTES", 0)
        write_page(short)
        show(browser, f"{serve(short)}#plain.wav")
    browser.find_element("id", "play").click()
    browser.find_element("id", "loop").click()  # of the first event, so that it does not end
    for key, expected in (("1", "Dog"), ("2", "Cat"), ("0", "")):
        press(browser, key)

        def heard(expected: str = expected) -> bool:
            loud = [level > 0.02 for level in browser.execute_script(METERS)]
            return loud == [expected == name for name in ("", "Dog", "Cat")]

        until(heard)
    until(lambda: seconds_of(browser) > 0.5)


def test_sources_keep_in_step(browser, short):
    show(browser, (short / "index.html").as_uri() + "#plain.wav")
    press(browser, "l", " ")

    def together() -> bool:
        times = browser.execute_script("return shown.tracks.map((track) => track.audio.currentTime)")
        return times[0] > 0.7 and max(times) - min(times) < 0.03

    until(together)
    press(browser, " ")
    until(lambda: browser.execute_script("return shown.tracks.every((track) => track.audio.paused)"))


def test_arrow_keys_jump_from_event_to_event(browser, short):
    from selenium.webdriver.common.keys import Keys

    show(browser, (short / "index.html").as_uri() + "#plain.wav")
    keys = (*[Keys.ARROW_RIGHT] * 4, *[Keys.ARROW_LEFT] * 2)
    for key, expected in zip(keys, (0.5, 2.0, 2.5, 2.5, 2.0, 0.5), strict=True):
        press(browser, key)
        until(lambda expected=expected: round(seconds_of(browser), 2) == expected)


def test_an_event_is_looped(browser, short):
    show(browser, (short / "index.html").as_uri() + "#plain.wav")
    press(browser, "l")
    until(lambda: seconds_of(browser) == pytest.approx(0.5, abs=0.01))
    browser.execute_script("shown.wave.setTime(1.2)")
    press(browser, " ")
    until(lambda: 0.4 < seconds_of(browser) < 1.1)  # back at its beginning
    press(browser, "l")
    until(lambda: browser.execute_script("return shown.loop === null"))


def test_a_stretch_is_looped_that_ends_with_the_recording(browser, short):
    show(browser, (short / "index.html").as_uri() + "#plain.wav")
    browser.execute_script(
        "window.ends = 0; shown.tracks[0].audio.addEventListener('ended', () => ends++);"
        "shown.regions.addRegion({ start: 3.6, end: shown.recording.seconds })"
    )
    press(browser, " ")
    until(lambda: browser.execute_script("return ends > 1"))


def test_keys_are_heeded_at_once_and_before_the_sound_is_there(browser, short, serve, monkeypatch):
    """One after the other without a pause, while the server keeps the sound back; it then plays from there."""
    monkeypatch.setattr(page, "INLINE_BYTES", 0)
    write_page(short)
    arrived, send_head = threading.Event(), serving._Handler.send_head

    def late(handler: Any) -> Any:
        if handler.path.startswith("/audio/"):
            arrived.wait(60)
        return send_head(handler)

    monkeypatch.setattr(serving._Handler, "send_head", late)
    show(browser, f"{serve(short)}#plain.wav")
    try:
        pressed = browser.execute_script(
            "return ['l', 'l', 'ArrowRight', 'l'].map((key) => {"
            "  document.dispatchEvent(new KeyboardEvent('keydown', { key }));"
            "  return [shown.loop && shown.loop.start, shown.wave.getCurrentTime(), shown.tracks[0].audio.readyState];"
            "})"
        )
        press(browser, " ")  # scripts may not begin to play
    finally:
        arrived.set()
    assert pressed == [[0.5, 0.5, 0], [None, 0.5, 0], [None, 2.0, 0], [2.0, 2.0, 0]]
    until(lambda: browser.execute_script("return shown.tracks.every((track) => track.audio.currentTime > 2)"))
    assert browser.execute_script("return shown.tracks.every((track) => !track.audio.paused)")


def test_recordings_are_searched_by_name_and_class(browser, short):
    show(browser, (short / "index.html").as_uri())
    field = browser.find_element("id", "search")

    def listed(text: str) -> int:
        field.clear()
        field.send_keys(text)
        return len(browser.find_elements("css selector", "#files a"))

    assert [listed("plain cat"), listed("dog"), listed("violin")] == [1, 2, 0]


def test_a_long_recording_shows_details_only_of_what_is_seen(browser, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "INLINE_BYTES", 0)
    add_recording(tmp_path, "long.wav", "lo#ng", seconds=300.0)  # with a sign that ends the path of an address
    write_page(tmp_path)
    show(browser, (tmp_path / "index.html").as_uri())
    asked = {Path(url).name for url in requests(browser) if url.startswith("file:")}
    assert not [name for name in asked if name.endswith(".png")]
    until(lambda: browser.execute_script("return shown.tracks[0].audio.readyState > 0"))
    press(browser, "+", "+", "+", "+", "+", "+")

    def tiles() -> list[int]:
        return browser.execute_script("return [...shown.tracks[1].images.keys()].sort((a, b) => a - b)")

    until(lambda: tiles() and tiles()[0] == 0 and len(tiles()) < 5)
    browser.execute_script("shown.wave.setScrollTime(250)")
    until(lambda: tiles() and tiles()[-1] == 7 and 0 not in tiles())
    drawn = "return [...shown.tracks[1].images.values()].every((each) => each.naturalWidth)"
    until(lambda: browser.execute_script(drawn))
    assert browser.get_log("browser") == []
