"""How a service tells its manager that it works: the protocol of sd_notify(3), which both managers here speak."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Self

from edgekit.device.detections import FrameResult
from edgekit.device.frame import Frame

# systemd advises to call in at half the time; a quarter leaves room for a slow frame.
_CALLS_PER_WATCHDOG = 4
_LONGEST_SILENCE_S = 5.0


class Notifier:
    """Sends states to the socket that the manager named; one that is full or gone is no reason to stop."""

    def __init__(self, address: str, watchdog_s: float | None) -> None:
        """Connect nothing yet: each message is one datagram.

        Args:
            address: Path of the manager's socket; `@` first for an abstract one.
            watchdog_s: How long the manager waits for a sign of life, None if it does not watch.
        """
        self.watchdog_s = watchdog_s
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)

    def send(self, **states: str) -> None:
        """Send `NAME=value` lines in one message."""
        text = "\n".join(f"{name}={' '.join(value.split())}" for name, value in states.items())
        with suppress(OSError):
            self._socket.sendto(text.encode(errors="replace"), self._address)

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()


def find_notifier(environ: Mapping[str, str] = os.environ) -> Notifier | None:
    """Return the way to the manager that started this process, None if none did or it does not listen."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return None
    watched = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    microseconds = environ.get("WATCHDOG_USEC", "")
    return Notifier(address, int(microseconds) / 1e6 if watched and microseconds.isdecimal() else None)


class HeartbeatSink:
    """Tells the manager of every few seconds' frames: the first one's result is READY, no result is no heartbeat.

    It is the last of the sinks, so that a frame counts only when it has been through everything.
    """

    def __init__(
        self,
        notifier: Notifier,
        describe: Callable[[], str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Remember where to report.

        Args:
            notifier: The way to the manager; closed with the sink.
            describe: Returns a line about the run's state, added to the status text.
            clock: Seconds.
        """
        self._notifier = notifier
        self._describe = describe
        self._clock = clock
        self._pause_s = min((notifier.watchdog_s or _LONGEST_SILENCE_S) / _CALLS_PER_WATCHDOG, _LONGEST_SILENCE_S)
        self._told_s: float | None = None
        self._frames = self._frames_told = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._notifier.send(STOPPING="1")
        self._notifier.close()

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Count the frame and, when it is time, report."""
        del frame
        self._frames += 1
        now_s = self._clock()
        if self._told_s is None:
            self._notifier.send(READY="1", WATCHDOG="1", STATUS="first frame done")
        elif now_s - self._told_s < self._pause_s:
            return
        else:
            fps = (self._frames - self._frames_told) / (now_s - self._told_s)
            text = f"{self._frames} frames, {fps:.1f} a second, {len(result.faces)} faces in the latest"
            more = self._describe() if self._describe else ""
            self._notifier.send(WATCHDOG="1", STATUS=f"{text}; {more}" if more else text)
        self._told_s, self._frames_told = now_s, self._frames
