"""The web page in a real browser: headless Chromium."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from edgekit.boards import Conditions, Throttling
from edgekit.contract import Subject
from edgekit.device.accounting import Account
from edgekit.device.events import EventRules
from edgekit.device.sinks.context import SinkLinks
from edgekit.device.sinks.events import EventSink
from edgekit.device.sinks.monitor import Monitor
from edgekit.device.sinks.web.server import WebSink
from tests.browser import PROGRAMS, wait
from tests.waiting import wait_until

TOKEN = "a-token-that-nobody-guesses"
VIEWERS = 4
HOT = Conditions(71.5, 1200.0, "firmware", 600.0, 1400.0, "ondemand", Throttling(0x80008), 412, 1.5)

pytestmark = pytest.mark.skipif(
    not all(PROGRAMS.values()), reason="no chromium and chromedriver here: apt install chromium chromium-driver"
)


@pytest.fixture
def site(feed, notices) -> Iterator[Callable[..., WebSink]]:
    """Serve a page with frames until the test ends; the first face is happy and sad in turn."""
    ended = threading.Event()
    with ExitStack() as stack:

        def serve(
            token: str | None = None,
            address: str = "0",
            subject: Subject = "face",
            account: Account | None = None,
            others: tuple[str, ...] = ("calm",),
        ) -> WebSink:
            monitor = Monitor("demo", lambda: HOT, lambda: [account] if account else [])
            sink = stack.enter_context(WebSink(address, token, monitor, max_fps=20))
            events = EventSink(EventRules(hold_s=0.2), SinkLinks([monitor]), lambda frame: frame.monotonic_s, None)

            def play() -> None:
                while not ended.wait(0.02):
                    label = "happy" if feed.sequence % 100 < 50 else "sad"
                    frame, result = feed.next(label, *(others if subject == "face" else ()))
                    result = replace(result, subject=subject)
                    monitor.add(result)
                    sink.write(frame, result)
                    events.write(frame, result)

            thread = threading.Thread(target=play)
            thread.start()
            stack.callback(thread.join)
            stack.callback(ended.set)
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
    wait(browser, f"{points} >= 6")
    assert browser.execute_script(chart) != before

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


# Draws the first point of an empty chart; returns the share of coloured pixels in the column before the right edge.
FIRST_POINT = """
points.length = 0;
show(Object.assign({}, arguments[0], {stage_ms: arguments[1]}));
const canvas = document.getElementById("chart"), pen = canvas.getContext("2d");
const column = pen.getImageData(canvas.width - 2, 0, 1, canvas.height).data;
const alphas = Array.from({length: canvas.height}, (_, row) => column[4 * row + 3]);
return alphas.filter((alpha) => alpha > 150).length / canvas.height;
"""


def test_the_first_point_is_drawn_and_the_stages_are_explained(browser, site):
    browser.get(site().url)
    wait(browser, "document.getElementById('status').textContent === 'live'")
    state = browser.execute_async_script("fetch('/api/state').then((got) => got.json()).then(arguments[0])")
    assert browser.execute_script(FIRST_POINT, state, {}) < 0.1, "only the grid"
    assert browser.execute_script(FIRST_POINT, state, {"detect": 20.0}) > 0.8
    # The Enter key opens the explanation.
    meaning = "the face detector; the mean includes frames without detection"
    assert meaning not in browser.find_element("tag name", "body").text
    browser.find_element("css selector", "summary").send_keys("\ue007")
    wait(browser, f"document.body.innerText.includes('{meaning}')")
    terms = "return Array.from(document.querySelectorAll('details dt'), (each) => each.innerText)"
    # The stages of a result. A result is sent before the stage "sinks" ends.
    stages = {"capture", "wait", "track", "detect", "crop", "classify"}
    assert set(browser.execute_script(terms)) == {"Age of results"} | stages
    text = browser.find_element("tag name", "body").text
    assert "Their sum is the latency of one frame, plus the time that capture waits for the frame." in text


def test_the_times_of_a_slow_source_are_not_cut_off_beside_the_chart(browser, site):
    browser.get(site().url)
    wait(browser, "document.getElementById('status').textContent === 'live'")
    script = """
        const begins = [], original = CanvasRenderingContext2D.prototype.fillText;
        CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
            if (this.textAlign === "right") begins.push(x - this.measureText(text).width);
            original.call(this, text, x, y);
        };
        for (const ms of [1, 1005, 40000]) { points.length = 0; addPoint({capture: ms}); drawChart(); }
        CanvasRenderingContext2D.prototype.fillText = original;
        return Math.min(...begins);
    """
    assert browser.execute_script(script) >= 0


def test_an_image_is_shown_although_no_other_one_follows(browser, feed, notices):
    monitor = Monitor("demo", lambda: HOT)
    with WebSink("0", None, monitor) as sink:
        sink.write(*feed.next("happy"))
        # The page is loaded when its first image is shown.
        browser.get(sink.url)
        assert browser.execute_script("return document.getElementById('video').naturalWidth") == 320
    assert (sink.preview.encoded, notices) == (1, [])


def test_nothing_is_drawn_in_a_gap_of_the_chart(browser, site):
    browser.get(site().url)
    wait(browser, "document.getElementById('status').textContent === 'live'")
    script = """
        points.length = 0;
        points.push({at: performance.now() / 1000 - 10, stageMs: {detect: 20}});
        addPoint({detect: 20});
        const now = performance.now() / 1000;
        return points.map((point) => [Math.round(2 * (now - point.at)) / 2, point.stageMs.detect || 0]);
    """
    assert browser.execute_script(script) == [[10, 20], [10, 0], [0.5, 0], [0.5, 20], [0, 20]]


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


def test_before_the_first_frame_the_page_is_not_live_and_later_it_shows_that_there_is_no_face(browser, site):
    browser.get(site().url)
    wait(browser, "document.getElementById('status').textContent === 'live'")
    state = browser.execute_async_script("fetch('/api/state').then((got) => got.json()).then(arguments[0])")
    status = "show(arguments[0]); return document.getElementById('status').textContent"
    assert browser.execute_script(status, {**state, "latest": None}) == "waiting for the first frame"
    empty = {**state, "latest": {**state["latest"], "faces": []}}
    assert browser.execute_script(status, empty) == "live"
    assert browser.execute_script("show(arguments[0]); return document.getElementById('faces').textContent", empty) == (
        "no faces"
    )


def test_labels_of_a_right_to_left_script_stand_in_the_order_of_the_arrow(browser, site):
    browser.get(site().url)
    wait(browser, "document.getElementById('status').textContent === 'live'")
    script = """
        showEvents([{wall_s: 0, track_id: 1, previous: "حزين", label: "سعيد"}], true);
        return Array.from(document.querySelectorAll("#events bdi"), (label) => label.getBoundingClientRect().left);
    """
    previous_px, label_px = browser.execute_script(script)
    assert previous_px < label_px


def test_an_uncertain_face_is_gray_and_counted(browser, site):
    browser.get(site(others=("uncertain",)).url)
    wait(browser, "document.getElementById('counts').textContent.includes(' uncertain')")
    colour = "return getComputedStyle(document.querySelector('#faces li{0} h3')).color"
    assert (
        browser.execute_script("return document.querySelector('#faces li.uncertain h3').firstChild.data") == "uncertain"
    )
    assert browser.execute_script(colour.format(".uncertain")) != browser.execute_script(
        colour.format(":not(.uncertain)")
    )
    events = browser.execute_script("return document.getElementById('events').textContent")
    assert "uncertain" not in events


def test_long_labels_and_reasons_are_no_wider_than_a_phone(browser, site):
    account = Account("event snapshots")
    account.produce()
    account.drop("a-reason-of-the-operating-system-" * 3)
    metrics = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(site(others=("a_long_label_without_spaces_" * 3,), account=account).url)
    wait(browser, "document.getElementById('events').textContent.includes('a_long_label')")
    wait(browser, "!document.getElementById('losses').hidden")
    assert browser.execute_script("return document.documentElement.scrollWidth") == 360
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_whole_images_have_one_label_without_a_number(browser, site):
    browser.get(site(subject="image").url)
    wait(browser, "document.getElementById('events').textContent.includes('happy → sad')")
    assert browser.execute_script("return document.querySelectorAll('#faces li').length") == 1
    shown = browser.find_element("tag name", "main").text
    assert "80 %" in shown
    assert "face 1" not in shown


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


def test_a_link_from_another_site_leads_a_viewer_to_the_page_and_a_new_token_to_the_login(browser, site):
    sink = site(TOKEN, "0.0.0.0:0")
    port = sink.url.rstrip("/").rpartition(":")[2]
    browser.get(f"http://127.0.0.2:{port}/login")
    browser.find_element("id", "token").send_keys(TOKEN)
    browser.find_element("tag name", "button").click()
    wait(browser, "document.getElementById('status')?.textContent === 'live'")
    browser.get(f"http://127.0.0.3:{port}/login")
    browser.execute_script(f"location.href = 'http://127.0.0.2:{port}/'")
    wait(browser, "location.host.startsWith('127.0.0.2') && document.readyState === 'complete'")
    wait(browser, "document.getElementById('status')?.textContent === 'live'")
    # This is the state after a restart of the run with another token.
    browser.delete_all_cookies()
    for connection in list(sink._server.server_state.connections):
        connection.loop.call_soon_threadsafe(connection.transport.abort)
    wait(browser, "location.pathname === '/login'")


def test_several_viewers_in_the_browser_see_it_move_for_one_encoding(browser, site, feed):
    sink = site(TOKEN, "0.0.0.0:0")
    port = sink.url.rstrip("/").rpartition(":")[2]
    # A browser opens at most six connections per host, so each viewer uses another address of this machine.
    for index in range(VIEWERS):
        browser.switch_to.new_window("tab")
        browser.get(f"http://127.0.0.{2 + index}:{port}/login")
        browser.find_element("id", "token").send_keys(TOKEN)
        browser.find_element("tag name", "button").click()
        wait(browser, "document.getElementById('status')?.textContent === 'live'")
    tabs = browser.window_handles[-VIEWERS:]
    assert sink.preview.viewers == VIEWERS
    for tab in tabs:
        browser.switch_to.window(tab)
        wait(browser, "document.getElementById('video').naturalWidth === 320")
        wait_for_images(browser, 2)
    assert sink.preview.encoded <= feed.sequence
    for tab in tabs:
        browser.switch_to.window(tab)
        browser.close()
    browser.switch_to.window(browser.window_handles[0])


def test_the_events_of_an_earlier_run_disappear(browser, site):
    browser.get(site().url)
    wait(browser, "document.querySelector('#events time') !== null")
    # The first state after a restart of the run.
    script = "showEvents([], true); return document.getElementById('events').textContent"
    assert browser.execute_script(script) == "no events yet"


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
