"""The web page in a real browser: headless Chromium."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from edgekit.contract import Subject
from edgekit.device.sinks.clips import ClipOptions
from edgekit.device.sinks.context import Account, SinkLinks
from edgekit.device.sinks.events import EventOptions, EventSink
from edgekit.device.sinks.monitor import Monitor
from edgekit.device.sinks.web.server import WebSink
from edgekit.device.zones import Zone, parse_zone
from tests.browser import PROGRAMS, wait
from tests.device.conftest import repeated
from tests.device.sinks.test_clips import labels_with_events, play
from tests.runs import HOT, Source, run_of
from tests.waiting import wait_until

TOKEN = "a-token-that-nobody-guesses"

pytestmark = pytest.mark.skipif(
    not all(PROGRAMS.values()), reason="no chromium and chromedriver here: apt install chromium chromium-driver"
)


@pytest.fixture
def site(feed, notices) -> Iterator[Callable[..., WebSink]]:
    """Serve a page with frames until the test ends; the first face is happy and sad in turn."""
    with ExitStack() as stack:

        def serve(
            token: str | None = None,
            address: str = "0",
            subject: Subject = "face",
            account: Account | None = None,
            clips: Path | None = None,
            zones: tuple[Zone, ...] = (),
            event_label: tuple[str, ...] = (),
        ) -> WebSink:
            monitor = Monitor("demo", lambda: HOT, lambda: [account] if account else [])
            sink = stack.enter_context(WebSink(address, token, monitor, max_fps=20, clips=clips))
            run = replace(run_of(notices.append), links=SinkLinks([monitor.post]))
            events = EventSink(EventOptions(event_hold=0.2, event_label=event_label), run)

            def show() -> None:
                label = "happy" if feed.sequence % 100 < 50 else "sad"
                frame, result = feed.next(label, *(["calm"] if subject == "face" else []))
                faces = result.faces
                if zones:
                    faces = replace(faces, zones=zones, zone_indices=np.zeros(len(faces), np.int64))
                result = replace(result, subject=subject, faces=faces)
                monitor.write(None, result)
                sink.write(frame, result)
                events.write(frame, result)

            stack.enter_context(repeated(show))
            return sink

        yield serve
    assert notices == []


# The sum of the pixel values of the current image.
PIXELS = """
const done = arguments[0], video = document.getElementById("video");
const canvas = new OffscreenCanvas(video.naturalWidth, video.naturalHeight), pen = canvas.getContext("2d");
pen.drawImage(video, 0, 0);
done(Array.from(pen.getImageData(0, 0, canvas.width, canvas.height).data).reduce((sum, value) => sum + value, 0));
"""


def wait_for_images(browser, count: int) -> None:
    """Wait until the video has shown `count` different images."""
    seen: set[int] = set()

    def have_come() -> bool:
        seen.add(browser.execute_async_script(PIXELS))
        return len(seen) >= count

    wait_until(have_come)


def test_frames_move_and_the_chart_grows(browser, site, tmp_path: Path):
    browser.get_log("browser")  # removes the log entries of earlier tests
    browser.get(site().url)
    wait(browser, "document.getElementById('status').textContent === 'live'")
    wait(browser, "document.getElementById('video').naturalWidth === 320")
    wait_for_images(browser, 4)

    points = "Number(document.getElementById('chart').dataset.points)"
    wait(browser, f"{points} >= 2")
    chart = "return document.getElementById('chart').toDataURL()"
    before = browser.execute_script(chart)
    wait_until(lambda: browser.execute_script(chart) != before)

    text = browser.find_element("tag name", "body").text
    for part in (
        "Frame rate",
        "71.5",
        "1200",
        "Throttling now: soft temperature limit",
        "detect 20.0",
        "face 2",
        "calm",
        "80 %",
        "412 MiB memory available",
    ):
        assert part in text
    wait(browser, "document.getElementById('events').textContent.includes('happy → sad')")
    # The browser's log contains violations of the content policy and errors of scripts.
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert browser.save_screenshot(str(tmp_path / "page.png"))


def test_the_video_moves_again_after_a_restart_of_the_run(browser, site):
    sink = site()
    browser.get(sink.url)
    wait(browser, "document.getElementById('video').naturalWidth === 320")
    sink.__exit__()
    wait(browser, "document.getElementById('status').textContent === 'connection lost'")
    site(address=str(urlsplit(sink.url).port))
    wait(browser, "document.getElementById('status').textContent === 'live'")
    wait(browser, "document.getElementById('video').naturalWidth === 320")
    wait_for_images(browser, 4)


def test_whole_images_have_one_label_without_a_number(browser, site):
    browser.get(site(subject="image").url)
    wait(browser, "document.getElementById('events').textContent.includes('happy → sad')")
    assert browser.execute_script("return document.querySelectorAll('#faces li').length") == 1
    shown = browser.find_element("tag name", "main").text
    assert "80 %" in shown
    assert "face 1" not in shown


def test_a_zone_is_drawn_as_a_line_for_the_settings(browser, site):
    from selenium.webdriver.common.action_chains import ActionChains

    browser.get(site().url)
    wait(browser, "document.getElementById('video').naturalWidth === 320")
    for closes_by_double_click in (True, False):
        browser.find_element("id", "draw").click()
        picture = browser.find_element("id", "drawing")
        width, height = picture.size["width"], picture.size["height"]
        clicks = ActionChains(browser)
        for x, y in ((-0.4, -0.3), (0.4, -0.3), (0, 0.4)):  # from the centre
            clicks.move_to_element_with_offset(picture, int(x * width), int(y * height)).click().pause(0.6)
        clicks.perform()
        if closes_by_double_click:
            ActionChains(browser).move_to_element_with_offset(picture, 0, int(0.45 * height)).double_click().perform()
        else:
            browser.find_element("id", "draw-done").click()
        name = browser.find_element("id", "zone-name")
        name.clear()
        name.send_keys("front door")
        setting, option = (browser.find_element("id", f"zone-{form}").text for form in ("setting", "option"))
        (text,) = tomllib.loads(setting)["zone"]
        assert option == f"--zone {text}"
        zone = parse_zone(text)
        drawn = [(0.1, 0.2), (0.9, 0.2), (0.5, 0.9)] + [(0.5, 0.95)] * closes_by_double_click
        assert (zone.name, np.array(zone.corners)) == ("front-door", pytest.approx(np.array(drawn), abs=0.01))


def test_the_page_names_the_zones_of_faces_and_events(browser, site):
    browser.get(site(zones=(parse_zone("door=0,0,1,0,1,1"),)).url)
    wait(browser, "document.getElementById('events').textContent.includes('face 1, door: happy → sad')")
    assert browser.execute_script("return document.querySelector('#faces small').textContent") == "face 1, door"


def test_an_event_with_the_same_label_again_is_no_change_of_it(browser, site):
    browser.get(site(event_label=("sad",)).url)
    wait(browser, "document.querySelectorAll('#events li:not(.dim)').length >= 2")
    lines = browser.execute_script("return [...document.querySelectorAll('#events li span')].map((e) => e.textContent)")
    assert set(lines) == {"face 1: sad"}


def test_the_token_is_refused_and_accepted(browser, site):
    url = site(TOKEN).url
    browser.get(url)
    wait(browser, "location.pathname === '/login'")
    for offered, arrives_at in (("not-the-token-at-all", "/login"), (TOKEN, "/")):
        browser.find_element("id", "token").send_keys(offered)
        browser.find_element("tag name", "button").click()
        wait(browser, f"location.pathname === '{arrives_at}' && location.href !== '{url}login'")
        if arrives_at == "/login":
            assert "Wrong token" in browser.find_element("tag name", "body").text
    wait(browser, "document.getElementById('status').textContent === 'live'")
    assert TOKEN not in browser.current_url
    assert browser.execute_script("return document.cookie") == "", "scripts cannot read the cookie"


def test_the_page_shows_what_was_not_written(browser, site):
    account = Account("jsonl")
    browser.get(site(account=account).url)
    wait(browser, "document.getElementById('status').textContent === 'live'")
    assert browser.execute_script("return document.getElementById('losses').hidden")
    account.produce(10)
    account.drop("disk full", 3)
    account.drop("disk too slow", 1)
    shown = "Not written: 3 of 10 jsonl (disk full), 1 of 10 jsonl (disk too slow)"
    wait(browser, f"document.getElementById('losses').textContent === '{shown}'")
    assert browser.execute_script("return document.getElementById('losses').checkVisibility()")


def test_a_clip_plays_when_its_picture_is_clicked(browser, site, tmp_path, notices):
    pytest.importorskip("av", reason="no PyAV here: pip install av")
    run = run_of(notices.append, Source(live=False, fps=10))
    play(run, ClipOptions(event_clips=tmp_path), labels_with_events(80, [40]), zones=(parse_zone("mat=0,0,1,0,1,1"),))
    browser.get(site(clips=tmp_path).url)
    wait_until(lambda: len(browser.find_elements("css selector", "#clips button img")) == 1)
    shown = browser.find_element("css selector", "#clips button").text
    # The date has the form of the browser's language.
    assert all(re.search(part, shown) for part in ("calm", "mat", r"\b20\d\d\b", r"\d:\d\d"))
    browser.find_element("css selector", "#clips button").click()
    shows = "const video = document.querySelector('#player video'); return [video.currentTime > 0.5, video.duration]"
    wait_until(lambda: browser.execute_script(shows)[0])
    assert browser.execute_script(shows)[1] >= 7.9
    browser.find_element("css selector", "#player button").click()
    assert not browser.find_element("css selector", "#player").is_displayed()
