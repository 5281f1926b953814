"""Real HTTP streams and devices with faults: hangs, damaged data, another size; passwords in addresses."""

from __future__ import annotations

import itertools
import socket
import threading

import numpy as np
import pytest

from edgekit.device.service import WATCHDOG_S
from edgekit.device.sources import live, open_source, opencv, picamera
from edgekit.errors import SourceError
from tests.waiting import PATIENCE_S, wait_until

SMALL, LARGE = (64, 48), (160, 120)


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the timeouts."""
    monkeypatch.setattr(live, "REOPEN_PAUSES_S", (0.01, 0.01, 0.01))
    monkeypatch.setattr(opencv, "READ_TIMEOUT_MS", 1000)


ENDLESS = ("pictures", 10_000, SMALL)


def test_a_stream_is_given_up_before_a_services_watchdog_would_end_the_run():
    # The worst case: silence, and a last attempt to which the driver does not respond.
    assert picamera.READ_TIMEOUT_S + live.LAST_ATTEMPT_S + live.HANGS_S < WATCHDOG_S
    assert opencv.OPEN_TIMEOUT_MS / 1e3 < live.HANGS_S, "the stream's own reason is more precise"


@pytest.mark.parametrize("call", ["connect", "read", "close"])
def test_a_driver_that_hangs_ends_the_run_and_what_it_opens_too_late_is_given_back(notices, monkeypatch, call):
    monkeypatch.setattr(live, "JOIN_S", 0.1)
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


@pytest.mark.parametrize("address", ["rtsp://pi:p%40ss@127.0.0.1:{port}/a", "http://pi:p%40ss@127.0.0.1:{port}/a"])
def test_the_error_of_a_stream_that_cannot_be_opened_hides_the_password(notices, address):
    with socket.create_server(("127.0.0.1", 0)) as shut:
        port = shut.getsockname()[1]
    with pytest.raises(SourceError) as raised:
        open_source(address.format(port=port), notices.append)
    assert str(port) in str(raised.value)
    assert "p%40ss" not in str(raised.value)


def test_damaged_data_in_a_stream_lose_only_the_frames_that_they_are_in(play, notices):
    server = play([("pictures", 20, SMALL), ("broken", 10), ("pictures", 20, SMALL), ("broken", 1), ENDLESS])
    with open_source(server.url, notices.append) as source:
        frames = list(itertools.islice(source, 100))
    good = [frame for frame in frames if np.abs(frame.image_bgr.astype(int) - 100).max() <= 3]
    assert len(good) >= 60
    assert {frame.image_bgr.shape for frame in frames} == {(48, 64, 3)}


def test_a_sender_that_returns_with_another_size_continues(play, notices):
    server = play([("pictures", 20, SMALL), ("end",)], [("pictures", 10_000, LARGE)])
    with open_source(server.url, notices.append) as source:
        frames = iter(source)
        assert next(frames).image_bgr.shape == (48, 64, 3)
        assert any(frame.image_bgr.shape == (120, 160, 3) for frame in itertools.islice(frames, 1000))
