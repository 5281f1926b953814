"""Real HTTP streams with the faults of cameras and networks: silence, end, changed size, damaged data."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from edgekit.device.service import WATCHDOG_S
from edgekit.device.sources import live, open_source, opencv, picamera
from edgekit.errors import InputError, SourceError
from tests.waiting import PATIENCE_S, wait_until

SMALL, LARGE = (64, 48), (160, 120)


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the timeouts."""
    monkeypatch.setattr(live, "_REOPEN_PAUSES_S", (0.01, 0.01, 0.01))
    monkeypatch.setattr(opencv, "_READ_TIMEOUT_MS", 1000)


ENDLESS = ("pictures", 10_000, SMALL)


def take(source, count: int, until: Callable[[list], bool] = lambda _: False) -> list:
    """Return frames until there are `count` or `until` holds."""
    frames: list = []
    end_s = time.monotonic() + PATIENCE_S
    for frame in source:
        frames.append(frame)
        assert time.monotonic() < end_s, "took too long"
        if len(frames) >= count or until(frames):
            break
    return frames


def test_a_stream_is_given_up_before_a_services_watchdog_would_end_the_run():
    # The worst case: silence, and a last attempt to which the driver does not respond.
    assert picamera.READ_TIMEOUT_S + live.LAST_ATTEMPT_S + live.HANGS_S < WATCHDOG_S
    assert opencv.OPEN_TIMEOUT_MS / 1e3 < live.HANGS_S, "the stream's own reason says more"


def test_connecting_to_a_host_that_refuses_slowly_ends(notices, monkeypatch):
    attempts = []

    def connect():
        attempts.append(1)
        if len(attempts) > 1:
            # As if this attempt had used all the time for attempts.
            monkeypatch.setattr(live, "LAST_ATTEMPT_S", 0.0)
            raise SourceError("no answer")
        return _OnePicture()

    with (
        live.LiveSource("stream 'slow'", connect, notices.append) as source,
        pytest.raises(SourceError, match="no answer"),
    ):
        list(source)
    assert len(attempts) == 2


@pytest.mark.parametrize("call", ["connect", "read", "close"])
def test_a_driver_that_hangs_ends_the_run_and_what_it_opens_too_late_is_given_back(notices, monkeypatch, call):
    monkeypatch.setattr(live, "_JOIN_S", 0.1)
    lets_go, device = threading.Event(), _OnePicture()
    if call == "connect":
        connect = lambda: lets_go.wait(PATIENCE_S) and device  # noqa: E731
    else:
        connect, returns = lambda: device, getattr(device, call)
        monkeypatch.setattr(device, call, lambda: (not device.is_empty or lets_go.wait(PATIENCE_S)) and returns())
    monkeypatch.setattr(live, "HANGS_S", 0.2)
    with (
        pytest.raises(SourceError, match="camera 'stuck' has not responded"),
        live.LiveSource("camera 'stuck'", connect, notices.append) as source,
    ):
        list(source)
    assert not device.closed
    lets_go.set()
    wait_until(lambda: device.closed)


class _OnePicture:
    """A device that delivers one image and is then lost."""

    fps = None

    def __init__(self) -> None:
        self._pictures = [np.zeros((2, 2, 3), np.uint8)]
        self.closed = False

    @property
    def is_empty(self) -> bool:
        return not self._pictures

    def read(self):
        return self._pictures.pop() if self._pictures else None

    def close(self) -> None:
        self.closed = True


def test_a_sender_that_sends_nothing_more_is_reported_and_connected_to_again(play, notices):
    server = play([("pictures", 20, SMALL), ("silence", 1000)], [ENDLESS])
    with open_source(server.url, notices.append) as source:
        frames = take(source, 60)
    lost = next(place for place, line in enumerate(notices) if "reopening it" in line)
    assert "was reopened" in notices[lost + 1]
    assert server.served >= 2
    sequences = [frame.sequence for frame in frames]
    assert sequences == sorted(set(sequences))


def test_a_sender_that_stays_silent_ends_the_run(play, notices, monkeypatch):
    server = play([("pictures", 20, SMALL), ("silence", 1000)], [("silence", 1000)])
    with open_source(server.url, notices.append) as source:
        monkeypatch.setattr(opencv, "_READ_TIMEOUT_MS", 500)
        monkeypatch.setattr(opencv, "OPEN_TIMEOUT_MS", 500)
        with pytest.raises(SourceError, match="could not be reopened in 3"):
            take(source, 1000)
    wait_until(lambda: server.served == 4)


def test_closing_does_not_wait_for_a_sender_that_sends_nothing(play, notices, monkeypatch):
    monkeypatch.setattr(opencv, "_READ_TIMEOUT_MS", 60_000)
    monkeypatch.setattr(live, "_JOIN_S", 0.2)
    server = play([("pictures", 3, SMALL), ("silence", 1000)])
    source = open_source(server.url, notices.append)
    threading.Timer(0.6, source.stop).start()
    with source:
        take(source, 1000)
    assert server.served == 1


@pytest.mark.parametrize("address", ["rtsp://pi:p%40ss@127.0.0.1:{port}/a", "http://pi:p%40ss@127.0.0.1:{port}/a"])
def test_the_error_of_a_stream_that_cannot_be_opened_hides_the_password(notices, address):
    with socket.create_server(("127.0.0.1", 0)) as shut:
        port = shut.getsockname()[1]
    with pytest.raises(SourceError) as raised:
        open_source(address.format(port=port), notices.append)
    assert str(port) in str(raised.value)
    assert "p%40ss" not in str(raised.value)


def test_a_port_that_cannot_be_is_refused(notices):
    with pytest.raises(InputError):
        open_source("http://127.0.0.1:99999/", notices.append)


def test_damaged_data_in_a_stream_lose_only_the_frames_that_they_are_in(play, notices):
    server = play([("pictures", 20, SMALL), ("broken", 10), ("pictures", 20, SMALL), ("broken", 1), ENDLESS])
    with open_source(server.url, notices.append) as source:
        frames = take(source, 100)
    good = [frame for frame in frames if np.abs(frame.image_bgr.astype(int) - 100).max() <= 3]
    assert len(good) >= 60
    assert {frame.image_bgr.shape for frame in frames} == {(48, 64, 3)}


def test_nothing_but_rubbish_is_a_lost_source(play, notices, monkeypatch):
    server = play([("pictures", 20, SMALL), ("broken", 10_000)], [("broken", 10_000)])
    with open_source(server.url, notices.append) as source:
        monkeypatch.setattr(opencv, "_READ_TIMEOUT_MS", 500)
        monkeypatch.setattr(opencv, "OPEN_TIMEOUT_MS", 500)
        with pytest.raises(SourceError, match="could not be reopened"):
            take(source, 100_000)


def test_a_sender_that_returns_with_another_size_continues(play, notices):
    server = play([("pictures", 20, SMALL), ("end",)], [("pictures", 10_000, LARGE)])
    with open_source(server.url, notices.append) as source:
        frames = take(source, 1000, lambda frames: frames[-1].image_bgr.shape == (120, 160, 3))
    assert frames[0].image_bgr.shape == (48, 64, 3)
    assert frames[-1].image_bgr.shape == (120, 160, 3)


def test_a_connection_cut_in_the_middle_of_a_picture_is_opened_again(play, notices):
    server = play([ENDLESS])

    class Cut(server.RequestHandlerClass):
        def do_GET(self) -> None:  # noqa: N802
            first = self.server.served == 0
            if not first:
                super().do_GET()
                return
            self.server.scripts = [[("pictures", 20, SMALL)], [ENDLESS]]
            super().do_GET()
            self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: 5000\r\n\r\n\xff\xd8\xff")
            self.connection.shutdown(socket.SHUT_RDWR)

    server.RequestHandlerClass = Cut
    with open_source(server.url, notices.append) as source:
        take(source, 60)
    assert server.served == 2
    assert any("was reopened" in message for message in notices)
