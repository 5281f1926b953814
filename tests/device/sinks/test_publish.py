"""`--publish` to a real RTSP server: GStreamer's, which others may publish to."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgekit.device.sinks.publish import PublishOptions
from edgekit.errors import InputError
from tests.faults.sinks import quicken
from tests.runs import Source, counts, run_of
from tests.waiting import wait_until

pytest.importorskip("av", reason="no PyAV here: pip install av")

# Debian's Python, for which GStreamer's packages are.
PYTHON = "/usr/bin/python3"
LOAD = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"


class Server:
    """The server, on a port that stays the same over restarts."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.video = folder / "received.h264"
        self.url = f"rtsp://user:secret-word@127.0.0.1:{self.port}/door"
        self._running: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [PYTHON, Path(__file__).parents[2] / "rtsp_server.py", str(self.port), self.video]
        self._running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._running.stdout.readline() == "ready\n"

    def kill(self) -> None:
        if self._running is not None:
            self._running.kill()
            self._running.communicate()

    def images(self) -> list[np.ndarray]:
        """Return the images that were received from the latest publisher."""
        if not self.video.exists() or not self.video.stat().st_size:
            return []
        capture = cv2.VideoCapture(str(self.video))
        return [read[1] for read in iter(capture.read, (False, None)) if read[0]]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    if not Path(PYTHON).exists() or subprocess.run([PYTHON, "-c", LOAD], capture_output=True).returncode:
        pytest.skip("no RTSP server here: apt install python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-bad")
    made = Server(tmp_path)
    yield made
    made.kill()


@pytest.fixture
def publish(server: Server, notices, feed, monkeypatch) -> Callable[..., Any]:
    """Return a sink, and a function that passes frames to it until a condition holds."""
    quicken(monkeypatch)
    run = run_of(notices.append)
    sink = PublishOptions(publish=server.url).open(run)

    def until(condition: Callable[[], object]) -> None:
        def write_and_check() -> object:
            sink.write(*feed.next("happy"))
            return condition()

        wait_until(write_and_check, poll_s=0.04)

    return run, sink, until


def test_every_frame_arrives_with_boxes_and_labels(server, publish, notices):
    run, sink, until = publish
    server.start()
    with sink:
        until(lambda: counts(run, "publish")["written"] >= 30)
    # GStreamer keeps an image until the next one begins.
    wait_until(lambda: len(server.images()) >= counts(run, "publish")["written"] - 1)
    (image, *_) = server.images()
    assert image.shape == (240, 320, 3)
    assert np.ptp(image) > 100, "the drawn box and label"
    assert notices == []


def test_a_server_that_is_away_and_comes_back_is_reported_once_and_its_losses_are_counted(server, publish, notices):
    run, sink, until = publish
    with sink:
        until(lambda: counts(run, "publish")["dropped"].get("connection refused", 0) > 5)
        server.start()
        until(lambda: len(server.images()) > 10)
        server.kill()
        until(lambda: len(notices) == 3)
        server.start()
        until(lambda: len(notices) == 4)
    found = counts(run, "publish")
    assert found["produced"] == found["written"] + sum(found["dropped"].values())
    assert ["resumed" in line for line in notices] == [False, True, False, True]
    assert "secret-word" not in str(notices)


def test_a_server_that_refuses_the_stream_is_reported_and_the_run_goes_on(server, notices, feed):
    server.start()
    run = run_of(notices.append)
    with PublishOptions(publish=server.url.replace("/door", "/other")).open(run) as sink:
        wait_until(lambda: sink.write(*feed.next("happy")) or notices)
    assert "secret-word" not in notices[0]
    assert counts(run, "publish")["written"] == 0


def test_a_server_that_answers_nothing_is_reported_and_does_not_stop_the_run(publish, server, notices):
    run, sink, until = publish
    with socket.create_server(("127.0.0.1", server.port)), sink:
        until(lambda: notices)
    assert set(counts(run, "publish")["dropped"]) >= {"timed out"}


@pytest.mark.parametrize(
    "url",
    ["http://host/door", "rtsp://", "rtsp://host:port/door", "rtsp://host/front door", f"rtsp://{'a' * 64}.de/door"],
)
def test_an_address_that_is_none_of_rtsp_is_refused(url, notices):
    with pytest.raises(InputError):
        PublishOptions(publish=url).open(run_of(notices.append))


def test_a_file_is_published_in_real_time_only(notices):
    with pytest.raises(InputError):
        PublishOptions(publish="rtsp://host/door").open(run_of(notices.append, Source(live=False)))
