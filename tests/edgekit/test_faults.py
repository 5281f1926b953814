"""Faults of real servers during `edgekit run`: RTSP killed or frozen; stream, broker and disk failing together."""

from __future__ import annotations

import http.server
import itertools
import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from edgekit.errors import EXIT_OK
from tests.ports import free_port
from tests.waiting import wait_until

SYSTEM_PYTHON = "/usr/bin/python3"
SIZE_WH = (320, 240)

# GStreamer's RTSP server in Debian's Python. All clients share one encoder, as with a camera.
RTSP_SERVER = """
import sys
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
port, pictures, last = sys.argv[1:]
if Gst.ElementFactory.find("openh264enc") is None:
    sys.exit("no openh264enc")
if not last:
    sys.exit()
factory = GstRtspServer.RTSPMediaFactory(shared=True, launch=(
    f"( multifilesrc location={pictures} stop-index={last} loop=true caps=image/jpeg,framerate=25/1 ! jpegdec "
    "! identity sync=true ! videoconvert ! openh264enc gop-size=25 complexity=low ! h264parse "
    "! rtph264pay name=pay0 pt=96 config-interval=1 )"
))
server = GstRtspServer.RTSPServer(address="127.0.0.1", service=port)
server.get_mount_points().add_factory("/live", factory)
if not server.attach(None):
    sys.exit("cannot listen")
GLib.MainLoop().run()
"""


class RtspServer:
    """A real RTSP server that plays a moving portrait and keeps its port after a restart."""

    def __init__(self, pictures: str, last: int) -> None:
        self.port = free_port()
        self.url = f"rtsp://127.0.0.1:{self.port}/live"
        self.running: subprocess.Popen[bytes] | None = None
        self._pictures, self._last = pictures, last

    def start(self) -> None:
        command = [SYSTEM_PYTHON, "-c", RTSP_SERVER, str(self.port), self._pictures, str(self._last)]
        self.running = subprocess.Popen(command)
        wait_until(self._answers)

    def freeze(self) -> None:
        self.running.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.running.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.running.kill()
        self.running.wait()

    def _answers(self) -> bool:
        assert self.running.poll() is None
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture(scope="module")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The file name pattern of 100 images of a moving portrait."""
    import cv2

    from edgekit.device.sources import open_source

    pattern = str(tmp_path_factory.mktemp("portrait") / "%03d.jpg")
    with open_source("demo", print) as source:
        for frame in itertools.islice(source, 100):
            cv2.imwrite(pattern % frame.sequence, cv2.resize(frame.image_bgr, SIZE_WH))
    return pattern


@pytest.fixture
def rtsp(portrait: str) -> Iterator[RtspServer]:
    """A running RTSP server; skips the test if none is installed."""
    try:
        tried = subprocess.run([SYSTEM_PYTHON, "-c", RTSP_SERVER, "", "", ""], capture_output=True, text=True)
        reason = tried.stderr.strip().rpartition("\n")[2]
    except OSError as error:
        reason = str(error)
    if reason:
        pytest.skip(f"no RTSP server here ({reason}): apt install gir1.2-gst-rtsp-server-1.0 python3-gi")
    server = RtspServer(portrait, 99)
    server.start()
    yield server
    server.kill()


class Receiver(http.server.ThreadingHTTPServer):
    """A webhook receiver, which records the events of a run; no fault of the tests affects it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), ReceiverHandler)
        self.events: list[dict] = []
        self.url = f"http://127.0.0.1:{self.server_port}/"


class ReceiverHandler(http.server.BaseHTTPRequestHandler):
    server: Receiver

    def log_message(self, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        self.server.events.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.shutdown()


def records(path: Path) -> list[dict]:
    """Return the records in the complete lines of a file."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def assert_in_order(lines: list[dict]) -> None:
    for one, next_one in itertools.pairwise(lines):
        assert one["sequence"] < next_one["sequence"]
        assert one["monotonic_s"] < next_one["monotonic_s"]


def with_faces(lines: list[dict]) -> int:
    return sum(bool(line["faces"]) for line in lines)


def moved_px(lines: list[dict]) -> float:
    """Return the range of the left edge of the first face, in pixels."""
    lefts = [line["faces"][0]["xyxy"][0] for line in lines if line["faces"]]
    return max(lefts) - min(lefts)


# Other time limits than the defaults; the order of events is the same.
SOON = """
from edgekit.device.sources import live, opencv
opencv._READ_TIMEOUT_MS, live._REOPEN_PAUSES_S = 2000, (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
from edgekit.device.sinks import records
records._RETRY_S = 0.5
"""


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_an_rtsp_server_that_fails_is_reported_and_opened_again_when_it_is_back(start, rtsp, tmp_path, fault):
    path = tmp_path / "r.jsonl"
    run = start("--source", rtsp.url, "--detector", "haar", "--jsonl", path, before=SOON)
    run.until(lambda: with_faces(records(path)) > 10)
    if fault == "killed":
        rtsp.kill()
        run.until_printed("was lost after")
        # The first attempts to reopen fail.
        time.sleep(1)
        rtsp.start()
    else:
        rtsp.freeze()
        run.until_printed("was lost after")
        rtsp.thaw()
    run.until_printed("was reopened")
    before = len(records(path))
    run.until(lambda: with_faces(records(path)[before:]) > 10 and moved_px(records(path)[before:]) > 3)
    run.process.send_signal(signal.SIGTERM)
    assert run.end() == EXIT_OK
    lines = records(path)
    assert len(lines) == json.loads(run.document)["frames"]
    assert_in_order(lines)
    assert run.stderr_text.count("was reopened") == 1


COLOURS = {"red": (0, 0, 220), "green": (0, 220, 0), "blue": (220, 0, 0)}


@pytest.mark.slow
def test_stream_broker_and_disk_fail_at_once_and_come_back(
    start, play, broker, receiver, small_disk, fill, monkeypatch
):
    monkeypatch.setenv("STATE_DIRECTORY", str(small_disk))
    changing = [("pictures", 40, (64, 48), colour) for colour in COLOURS.values()] * 100
    server = play(changing)
    broker.remember()
    broker.start()
    path = small_disk / "r.jsonl"
    with ExitStack() as stack:
        listener = broker.listen(stack, client_id="remembered")
        arguments = ["--source", server.url, "--jsonl", path, "--event-hold", "0.2", "--webhook", receiver.url]
        arguments += ["--mqtt", f"mqtt://127.0.0.1:{broker.port}", "--mqtt-topic", "edgekit/test"]
        run = start(*arguments, before=SOON)
        run.until(lambda: len(listener.events()) >= 3 and records(path))

        safe = {event["event_id"] for event in listener.events()}
        broker.kill()
        time.sleep(0.1)
        # The broker may lose events that it had confirmed, but not yet delivered, when it was killed.
        undelivered = {event["event_id"] for event in receiver.events} - safe
        ballast = fill(small_disk)
        run.until_printed("events are buffered")
        run.until_printed("saving the MQTT buffer")
        run.until_printed(f"recording to '{path}' stopped")
        server.held.set()
        run.until_printed(f"stream '{server.url}' was lost after")
        in_outage = {event["event_id"] for event in receiver.events} - safe - undelivered
        assert in_outage
        written = len(records(path))

        server.held.clear()
        ballast.unlink()
        broker.start()
        run.until_printed("MQTT broker reconnected")
        run.until_printed(f"stream '{server.url}' was reopened")
        run.until_printed(f"recording to '{path}' resumed")
        run.until(lambda: len(receiver.events) >= len(safe | undelivered | in_outage) + 3)
        run.process.send_signal(signal.SIGTERM)
        assert run.end() == EXIT_OK
        posted = {event["event_id"] for event in receiver.events}
        listener.until(lambda: posted - undelivered <= {event["event_id"] for event in listener.events()})
        first_arrivals = list(dict.fromkeys(listener.sequences()))
    assert first_arrivals == sorted(first_arrivals)
    lines = records(path)
    assert len(lines) == json.loads(run.document)["frames"] > written, "what waited in memory is there too"
    assert_in_order(lines)
