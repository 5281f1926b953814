"""Heartbeats to a service manager, over real datagram sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgekit.device.detections import FrameResult
from edgekit.device.frame import Frame
from edgekit.device.service.notify import HeartbeatSink, Notifier, find_notifier
from tests.device.conftest import Clock

FRAME = Frame(0, 0.0, 0.0, np.zeros((2, 2, 3), np.uint8))
RESULT = FrameResult(0, 0.0, 0.0, (2, 2), (), {}, 0.0)


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """The socket of a service manager, and its address for NOTIFY_SOCKET."""
    address = f"@edgekit-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        end.setblocking(False)
        yield end, address


def received(end: socket.socket) -> list[dict[str, str]]:
    messages = []
    while True:
        try:
            text = end.recv(4096).decode()
        except BlockingIOError:
            return messages
        messages.append(dict(line.split("=", 1) for line in text.splitlines()))


def test_ready_comes_with_the_first_result_and_heartbeats_with_later_ones(manager):
    end, address = manager
    clock = Clock(100.0)
    notifier = find_notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "8000000", "WATCHDOG_PID": str(os.getpid())})
    with HeartbeatSink(notifier, lambda: "61.5 °C", clock) as sink:
        assert received(end) == []
        sink.write(FRAME, RESULT)
        (message,) = received(end)
        assert (message["READY"], message["WATCHDOG"]) == ("1", "1")
        clock.now_s += 1.9
        sink.write(FRAME, RESULT)
        assert received(end) == []
        clock.now_s += 0.1
        sink.write(FRAME, RESULT)
        (message,) = received(end)
        assert (message["WATCHDOG"], message["STATUS"].endswith("61.5 °C")) == ("1", True)
        clock.now_s += 1000
        assert received(end) == [], "no frame, no heartbeat"
    assert received(end) == [{"STOPPING": "1"}]


def test_a_paused_run_sends_heartbeats_once_it_is_ready(manager):
    end, address = manager
    clock = Clock(100.0)
    notifier = find_notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "8000000", "WATCHDOG_PID": str(os.getpid())})
    with HeartbeatSink(notifier, clock=clock) as sink:
        sink.idle()
        assert received(end) == [], "no frame, not ready"
        sink.write(FRAME, RESULT)
        received(end)
        clock.now_s += 1.9
        sink.idle()
        assert received(end) == []
        clock.now_s += 0.1
        sink.idle()
        assert [message["WATCHDOG"] for message in received(end)] == ["1"]


def test_a_manager_that_left_or_does_not_read_stops_nothing(tmp_path):
    gone = Notifier(str(tmp_path / "nobody"), 1.0)
    gone.send(WATCHDOG="1")
    gone.close()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "busy"))
        notifier = Notifier(str(tmp_path / "busy"), 1.0)
        for _ in range(10_000):
            notifier.send(WATCHDOG="1")
        notifier.close()
