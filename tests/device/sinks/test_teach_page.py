"""`edgekit teach --source FILE` in a real browser, with a video as camera: from the command to correct live labels."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from edgekit.device.engines.engine import contract_in
from tests.browser import PROGRAMS, wait
from tests.device.http_client import request
from tests.things import write_clip
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(
    not all(PROGRAMS.values()), reason="no chromium and chromedriver here: apt install chromium chromium-driver"
)

# What the video shows now, from the colour of its pixels.
SHOWN = """
const video = document.getElementById("video");
if (!video || !video.naturalWidth) return "";
const canvas = new OffscreenCanvas(48, 36), pen = canvas.getContext("2d");
pen.drawImage(video, 0, 0, 48, 36);
const data = pen.getImageData(0, 6, 48, 30).data;
let red = 0, blue = 0;
for (let i = 0; i < data.length; i += 4) {
  if (data[i] > data[i + 2] + 90) red += 1;
  if (data[i + 2] > data[i] + 60) blue += 1;
}
return red > 40 ? "mug" : blue > 20 ? "bolt" : "";
"""


@pytest.fixture
def command(tmp_path: Path) -> Iterator[str]:
    """Run `edgekit teach` on a video of a mug and a bolt, which is repeated; the URL of its page."""
    write_clip(tmp_path / "camera.mp4", ["mug", "bolt"], seconds_each=3)
    arguments = ["teach", "--source", "camera.mp4", "-o", "my.onnx", "--web", "127.0.0.1:0"]
    with ExitStack() as stack:
        run = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "edgekit.cli", *arguments], cwd=tmp_path, stdout=subprocess.PIPE, text=True
            )
        )
        stack.callback(run.kill)
        assert run.stdout is not None
        line = run.stdout.readline()
        yield line.split()[-1].removesuffix("/teach")
        run.send_signal(signal.SIGINT)
        printed = run.stdout.read()
        assert run.wait(60) == 130
        assert "my-pictures" in printed
        assert ("edgekit run --camera --model my.onnx" in printed) == (tmp_path / "my.onnx").is_file()


def shown(browser) -> str:
    return browser.execute_script(SHOWN)


@contextmanager
def held(browser, name: str) -> Iterator[None]:
    """Hold the button of a class with the mouse."""
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).click_and_hold(browser.find_element("css selector", f"[data-name={name}] .hold")).perform()
    yield
    ActionChains(browser).release().perform()


def record(browser, name: str, count: int) -> None:
    """Hold the button of a class while the video shows the thing, until the class has `count` pictures."""
    pictures = f"return document.querySelectorAll('[data-name={name}] .thumbs button').length"
    while browser.execute_script(pictures) < count:
        wait_until(lambda: shown(browser) == name, poll_s=0.1)
        with held(browser, name):
            wait_until(lambda: shown(browser) != name or browser.execute_script(pictures) >= count, poll_s=0.1)
    wait(browser, "document.querySelector('.hold.on') === null")


@pytest.mark.slow
def test_two_things_are_taught_and_used_by_hand(browser, command: str, tmp_path: Path) -> None:
    browser.get_log("browser")
    browser.get(f"{command}/")
    wait(browser, "!document.getElementById('tabs').hidden")
    browser.find_element("css selector", "#tabs a[href='/teach']").click()
    wait(browser, "document.getElementById('status').textContent === 'live'")
    for name in ("mug", "bolt"):
        browser.find_element("id", "new-name").send_keys(name)
        browser.find_element("css selector", "#new button").click()
        wait(browser, f"document.querySelector('[data-name={name}]') !== null")
        record(browser, name, 6)
    for name in ("mug", "bolt"):
        wait_until(lambda name=name: shown(browser) == name, poll_s=0.1)
        wait(browser, f"document.body.dataset.label === '{name}'")
        assert browser.execute_script(f"return document.querySelector('.best').dataset.name === '{name}'")

    browser.find_element("id", "use").click()
    wait(browser, "document.getElementById('in-use').textContent.includes('taught')")
    wait(browser, "document.getElementById('use').disabled")
    for name in ("mug", "bolt"):
        wait_until(lambda name=name: shown(browser) == name and latest(command) == name, poll_s=0.1)
    assert set(contract_in(tmp_path / "my.onnx").labels) == {"mug", "bolt"}

    browser.find_element("css selector", "[data-name=bolt] .thumbs button").click()
    wait(browser, "document.getElementById('undo').textContent.includes('delete')")
    browser.find_element("id", "undo").click()
    wait(browser, "document.querySelectorAll('[data-name=bolt] .thumbs button').length >= 6")
    browser.find_element("id", "back").click()
    wait(browser, "document.getElementById('in-use').textContent.includes('No model')")
    browser.find_element("id", "back").click()
    wait(browser, "document.getElementById('in-use').textContent.includes('taught')")
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 800)])
def test_the_tab_is_no_wider_than_the_screen_and_a_region_is_drawn(
    browser, command: str, width: int, height: int
) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(f"{command}/teach")
    wait(browser, "document.getElementById('status').textContent === 'live'")
    wait(browser, "document.getElementById('video').naturalWidth > 0")
    browser.find_element("id", "new-name").send_keys("a-long-name-without-spaces" * 2)
    browser.find_element("css selector", "#new button").click()
    wait(browser, "document.querySelector('.hold') !== null")
    assert browser.execute_script("return document.documentElement.scrollWidth") == width

    browser.find_element("id", "draw").click()
    stage = browser.find_element("id", "stage")
    box = stage.rect
    corner = (-box["width"] / 4, -box["height"] / 4)
    chain = ActionChains(browser).move_to_element_with_offset(stage, *map(round, corner)).click_and_hold()
    chain.move_by_offset(round(box["width"] / 2), round(box["height"] / 2)).release().perform()
    wait(browser, "!document.getElementById('whole').hidden && state.region !== null")
    region = browser.execute_script("return [state.region.x, state.region.y, state.region.width, state.region.height]")
    assert region == pytest.approx([0.25, 0.25, 0.5, 0.5], abs=0.02)
    browser.find_element("id", "whole").click()
    wait(browser, "document.getElementById('region').hidden && state.region === null")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def latest(address: str) -> str:
    """Return the label that the run itself gives to its newest frame."""
    return json.loads(request(address, "GET", "/api/state")[2])["latest"]["results"][0]["label"]
