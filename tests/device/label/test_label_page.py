"""The labelling page in a real browser: headless Chromium with keyboard input."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser import PROGRAMS, wait
from tests.device.label.crops import CLASSES, collect

pytestmark = pytest.mark.skipif(
    not all(PROGRAMS.values()), reason="no chromium and chromedriver here: apt install chromium chromium-driver"
)


def press(browser, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    for key in keys:
        ActionChains(browser).send_keys(key).perform()


def shows(browser, name: str) -> None:
    """Wait until the crop `name` is shown first and its pixels are loaded."""
    image = "document.querySelector('#crops img')"
    wait(
        browser,
        f"document.getElementById('crops').dataset.crop === '{name}' && {image}.complete && {image}.naturalWidth",
    )


def waiting(browser, count: int) -> None:
    wait(browser, f"document.body.dataset.waiting === '{count}' && pending === 0")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.png"))


def test_twenty_crops_are_labelled_by_keys_one_is_undone_and_a_track_is_one_decision(browser, label, tmp_path, notices):
    folder = tmp_path / "c"
    crops = collect(folder, [3, *[1] * 15, 2])  # a track of three, 15 single crops, a track of two
    track, singles, pair = crops[:3], crops[3:18], crops[18:]
    client = label()
    browser.get_log("browser")  # removes the log entries of earlier tests, which provoke conflicts
    browser.get(client.url)
    waiting(browser, 20)
    shows(browser, track[0])
    assert browser.execute_script("return document.querySelectorAll('#crops img').length") == 3
    assert "labelled here" in browser.find_element("tag name", "body").text
    press(browser, "2")  # one key labels the track
    for name in singles[:13]:
        shows(browser, name)
        press(browser, " ")  # the model's label
    shows(browser, singles[13])
    press(browser, "x")
    shows(browser, singles[14])
    press(browser, "1")
    shows(browser, pair[0])
    press(browser, "u")  # the last single crop is shown again
    shows(browser, singles[14])
    press(browser, "3")
    shows(browser, pair[0])
    press(browser, "s", "1")
    shows(browser, pair[1])
    press(browser, "3")
    waiting(browser, 0)
    assert "19 labelled, 1 discarded" in browser.find_element("id", "title").text
    # Single crop i has track i + 1, and the model's label of a track is CLASSES[track % 3].
    expected = {name: CLASSES[(index + 1) % 3] for index, name in enumerate(singles[:13])}
    expected |= dict.fromkeys(track, "happy") | {singles[14]: "sad", pair[0]: "calm", pair[1]: "sad"}
    for name in CLASSES:
        assert names(folder / "labelled" / name) == sorted(crop for crop, given in expected.items() if given == name)
    assert names(folder / "discarded") == [singles[13]]
    assert names(folder / "crops") == []
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert notices == []


def test_a_button_teaches_from_the_labels_and_names_the_next_command(browser, label, tmp_path):
    collect(tmp_path / "c", [2, 2, 2, 2])
    browser.get(label().url)
    for count, key in ((8, "1"), (6, "2"), (4, "1"), (2, "2")):
        waiting(browser, count)
        press(browser, key)
    waiting(browser, 0)
    browser.find_element("id", "teach").click()
    wait(browser, "document.getElementById('taught-next').textContent.startsWith('edgekit run')")
    assert "%" in browser.find_element("id", "taught").text
    assert (tmp_path / "c" / "taught.onnx").is_file()
