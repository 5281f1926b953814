"""Heartbeats to the service manager: the protocol of sd_notify(3)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from edgekit.device.detections import FrameResult
from edgekit.device.frame import Frame
from edgekit.device.sink import Sink

# sd_watchdog_enabled(3) recommends half the watchdog's time; a quarter tolerates a slow frame.
_HEARTBEATS_PER_WATCHDOG = 4
_LONGEST_PAUSE_S = 5.0


class Notifier:
    """Sends states to the service manager's socket; a full or closed socket is ignored."""

    def __init__(self, address: str, watchdog_s: float | None) -> None:
        """Create the socket.

        Args:
            address: Path of the service manager's socket, or an abstract address that begins with `@`.
            watchdog_s: Time without a heartbeat after which the manager restarts the service; None: no watchdog.
        """
        self.watchdog_s = watchdog_s
        import socket  # slow to import, and needed by services only

        # `@` stands for the zero byte at the start of an abstract address.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)  # the run never waits for the service manager

    def send(self, **states: str) -> None:
        """Send `NAME=value` lines in one message."""
        text = "\n".join(f"{name}={' '.join(value.split())}" for name, value in states.items())
        with suppress(OSError):
            self._socket.sendto(text.encode(errors="replace"), self._address)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def find_notifier(environ: Mapping[str, str] = os.environ) -> Notifier | None:
    """Return a notifier for the service manager that started this process; None if none has started it.

    systemd states its socket and the time of its watchdog in environment variables. The watchdog is for the process
    WATCHDOG_PID only, because children inherit the variables.
    """
    address = environ.get("NOTIFY_SOCKET", "")  # a path, or with "@" the name of an abstract socket
    if not address.startswith(("/", "@")):
        return None
    own_pid = str(os.getpid())
    watchdog_us = environ.get("WATCHDOG_USEC", "")
    has_watchdog = environ.get("WATCHDOG_PID", own_pid) == own_pid and watchdog_us.isdecimal()
    return Notifier(address, int(watchdog_us) / 1e6 if has_watchdog else None)


@dataclass(eq=False)
class HeartbeatSink(Sink):
    """Sink that sends READY after the first frame and a heartbeat every few seconds while frames are finished.

    It must be the last sink, so that a frame counts only after all other sinks have taken it. The pause between
    heartbeats follows from the notifier's watchdog time.

    Attributes:
        notifier: Receives the messages; closed with the sink.
        describe: Returns one line about the run's state, which is appended to the status text.
        clock: Returns seconds.
    """

    notifier: Notifier
    describe: Callable[[], str] = lambda: ""
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        watchdog_s = self.notifier.watchdog_s or _LONGEST_PAUSE_S
        self._pause_s = min(watchdog_s / _HEARTBEATS_PER_WATCHDOG, _LONGEST_PAUSE_S)
        self._sent_s: float | None = None
        self._frames = self._sent_frames = 0

    def __exit__(self, *exception: object) -> None:
        self.notifier.send(STOPPING="1")
        self.notifier.close()

    def idle(self) -> None:
        """Send a heartbeat when one is due, for a run that is paused; may be called from any thread."""
        now_s = self.clock()
        if self._sent_s is not None and now_s - self._sent_s >= self._pause_s:
            self.notifier.send(WATCHDOG="1", STATUS=f"paused after {self._frames} frames")
            self._sent_s, self._sent_frames = now_s, self._frames

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Count the frame; send READY after the first one, then a heartbeat with the frame rate when one is due."""
        del frame, result
        self._frames += 1
        now_s = self.clock()
        if self._sent_s is None:  # nothing was sent yet
            self.notifier.send(READY="1", WATCHDOG="1", STATUS="first frame done")
        elif now_s - self._sent_s < self._pause_s:
            return
        else:
            fps = (self._frames - self._sent_frames) / (now_s - self._sent_s)
            status = f"{self._frames} frames, {fps:.1f} frames/s"
            if more := self.describe():
                status += f"; {more}"
            self.notifier.send(WATCHDOG="1", STATUS=status)
        self._sent_s, self._sent_frames = now_s, self._frames
