"""Time-outs for devices whose drivers have none.

A driver may block a call for ever: after a camera's cable is unplugged, or while a sender holds the connection and
sends nothing. No other thread can interrupt that call, so a thread opens and reads the device and is abandoned if it
hangs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

from edgekit.errors import SourceError
from edgekit.text import one_line

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")

# A read that takes longer counts as the loss of the device. For slow senders the limit is a multiple of the duration of
# their latest read.
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
    return max(LOST_S, FIRST_S if latest_read_s is None else min(latest_read_s * _SLOW_SENDER_FACTOR, FIRST_S))


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
    reply: Future[T] = Future()
    _start(lambda: _answer(reply, call), name)
    return reply.result()


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
    """A device whose `read` returns None after a time-out."""

    def __init__(
        self, connect: Callable[[], Readable[T]], name: str, notify: Callable[[str], None], open_within_s: float
    ) -> None:
        """Open the device with `connect`; `notify` receives one line if it cannot be closed.

        Raises:
            SourceError: The device did not open within `open_within_s`. It is released if it opens later.
            Exception: Whatever `connect` raises.
        """
        self._name = name
        self._notify = notify
        self._latest_read_s: float | None = None
        # Replies to fill: the first with the opened device's frame rate, the others with images. None ends the thread.
        self._requests: SimpleQueue[Future[Any] | None] = SimpleQueue()
        self._thread = _start(lambda: self._serve(connect), f"read {name}")
        opened = self._request()
        try:
            self.fps: float | None = opened.result(open_within_s)
        except BaseException as error:  # also that of a signal handler: nothing will be read
            self._requests.put(None)
            if isinstance(error, TimeoutError) and not opened.done():
                raise SourceError(f"{name} does not respond: it was not opened within {open_within_s:g} s") from None
            raise

    def read(self) -> T | None:
        """Return the next image, or None if the device is lost or the time-out has passed.

        Raises:
            Exception: Whatever the device's `read` raises.
        """
        started_s, reply = time.monotonic(), self._request()
        try:
            image: T | None = reply.result(read_timeout_s(self._latest_read_s))
        except TimeoutError:
            if reply.done():
                raise
            return None
        self._latest_read_s = time.monotonic() - started_s
        return image

    def close(self) -> None:
        """Release the device; a device that does not respond now is released when it responds."""
        self._requests.put(None)
        self._thread.join(_CLOSE_S)

    def _request(self) -> Future[Any]:
        reply: Future[Any] = Future()
        self._requests.put(reply)
        return reply

    def _serve(self, connect: Callable[[], Readable[T]]) -> None:
        devices: list[Readable[T]] = []

        def opened() -> float | None:
            devices.append(connect())
            return devices[0].fps

        while (reply := self._requests.get()) is not None:
            _answer(reply, devices[0].read if devices else opened)
        for device in devices:
            try:
                device.close()
            except Exception as error:  # the driver of a lost camera may fail; picamera2 raises classes of its own
                self._notify(f"{self._name} could not be closed: {one_line(str(error))}")


def _answer(reply: Future[T], call: Callable[[], T]) -> None:
    try:
        reply.set_result(call())
    except BaseException as error:  # raised again by `result`
        reply.set_exception(error)


def _start(work: Callable[[], None], name: str) -> threading.Thread:
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    _readers[:] = [*(other for other in _readers if other.is_alive()), thread]
    return thread
