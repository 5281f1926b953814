"""Time-outs for devices whose drivers have none.

A driver may block a call for ever: after a camera's cable is unplugged, or while a sender holds the connection and
sends nothing. No other thread can interrupt that call, so a thread opens and reads the device and is abandoned if it
hangs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Generic, Protocol, TypeVar

from edgekit.errors import SourceError
from edgekit.text import one_line

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")

# A read that takes longer than this is reported, or counts as the loss of the device. For slow
# senders the limit is a multiple of the duration of their latest read.
REPORT_S = 1.5
LOST_S = 5.0
_SLOW_SENDER_FACTOR = 4
# The first image of a stream can take several seconds, until the next key frame. No read may take longer than this.
FIRST_S = 10.0

# A device that responds ends its thread within the time of one frame.
_CLOSE_S = 1.0

# The reading threads of all devices, abandoned ones included.
_readers: list[threading.Thread] = []


def read_timeout_s(latest_read_s: float | None) -> float:
    """Return the time-out of the next read, given the duration of the latest one (None: there was none)."""
    return max(LOST_S, _usual_s(latest_read_s))


def any_reading() -> bool:
    """Return whether the reading thread of any device still runs.

    The interpreter must not shut down while such a thread runs: the process aborts if the driver's call returns then.
    """
    return any(thread.is_alive() for thread in _readers)


def call_in_thread(call: Callable[[], T], name: str) -> T:
    """Return the result of a call; a thread makes it, which is left behind if a signal ends the wait.

    Raises:
        Exception: Whatever `call` raises.
    """
    results: SimpleQueue[tuple[list[T], BaseException | None]] = SimpleQueue()

    def work() -> None:
        try:
            results.put(([call()], None))
        except BaseException as error:  # raised again below
            results.put(([], error))

    _start(threading.Thread(target=work, name=name, daemon=True))
    result, error = results.get()
    if error is not None:
        raise error
    return result[0]


class Readable(Protocol[T_co]):
    """A device that `TimeoutGuard` can read."""

    fps: float | None

    def read(self) -> T_co | None:
        """Return the next image, or None if the device is lost."""
        ...

    def close(self) -> None:
        """Release the device."""
        ...


class TimeoutGuard(Generic[T]):
    """A device whose `read` reports a delay and returns None after a time-out."""

    def __init__(
        self, connect: Callable[[], Readable[T]], name: str, notify: Callable[[str], None], open_within_s: float
    ) -> None:
        """Open the device with `connect`; `notify` receives one line for each delay and its end.

        Raises:
            SourceError: The device did not open within `open_within_s`. It is released if it opens later.
            Exception: Whatever `connect` raises.
        """
        self._name = name
        self._notify = notify
        self._latest_read_s: float | None = None
        self._opened: SimpleQueue[float | BaseException | None] = SimpleQueue()
        # True requests one read, False the end of the thread.
        self._requests: SimpleQueue[bool] = SimpleQueue()
        self._results: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, args=[connect], name=f"read {name}", daemon=True)
        _start(self._thread)
        try:
            opened = self._opened.get(timeout=open_within_s)
        except Empty:
            self._requests.put(False)
            raise SourceError(f"{name} does not respond: it was not opened within {open_within_s:g} s") from None
        except BaseException:  # a signal handler raised: nothing will be read
            self._requests.put(False)
            raise
        if isinstance(opened, BaseException):
            raise opened
        self.fps = opened

    def read(self) -> T | None:
        """Return the next image, or None if the device is lost or the time-out has passed.

        Raises:
            Exception: Whatever the device's `read` raises.
        """
        started_s = time.monotonic()
        report_s = max(REPORT_S, _usual_s(self._latest_read_s))
        self._requests.put(True)
        try:
            image, error = self._results.get(timeout=report_s)
        except Empty:
            self._notify(f"{self._name} delivered no image for {report_s:.1f} s")
            try:
                image, error = self._results.get(timeout=max(LOST_S - report_s, 0))
            except Empty:
                return None
            if image is not None:
                self._notify(f"{self._name} delivers images again after {time.monotonic() - started_s:.1f} s")
        if error is not None:
            raise error
        self._latest_read_s = time.monotonic() - started_s
        return image

    def close(self) -> None:
        """Release the device; a device that does not respond now is released when it responds."""
        self._requests.put(False)
        self._thread.join(_CLOSE_S)

    def _serve(self, connect: Callable[[], Readable[T]]) -> None:
        try:
            device = connect()
        except BaseException as error:  # raised again in the constructor
            self._opened.put(error)
            return
        try:
            self._opened.put(device.fps)
            while self._requests.get():
                try:
                    self._results.put((device.read(), None))
                except BaseException as error:  # raised again in `read`
                    self._results.put((None, error))
        finally:
            try:
                device.close()
            except Exception as error:  # the driver of a lost camera may fail; picamera2 raises classes of its own
                self._notify(f"{self._name} could not be closed: {one_line(str(error))}")


def _start(thread: threading.Thread) -> None:
    thread.start()
    _readers[:] = [*(other for other in _readers if other.is_alive()), thread]


def _usual_s(latest_read_s: float | None) -> float:
    return FIRST_S if latest_read_s is None else min(latest_read_s * _SLOW_SENDER_FACTOR, FIRST_S)
