"""A real RTSP server that is killed or frozen during `edgekit run`."""

from __future__ import annotations

import itertools
import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
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


def records(path: Path) -> list[dict]:
    """Return the records in the complete lines of a file."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def with_faces(lines: list[dict]) -> int:
    return sum(bool(line["faces"]) for line in lines)


def moved_px(lines: list[dict]) -> float:
    """Return the range of the left edge of the first face, in pixels."""
    lefts = [line["faces"][0]["xyxy"][0] for line in lines if line["faces"]]
    return max(lefts) - min(lefts)


# Other time limits than the defaults; the order of events is the same.
SOON = """
from edgekit.device.sources import live, opencv
opencv.READ_TIMEOUT_MS, live.REOPEN_PAUSES_S = 2000, (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
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
    sequences = [line["sequence"] for line in lines]
    assert sequences == sorted(set(sequences))
    assert run.stderr_text.count("was reopened") == 1
