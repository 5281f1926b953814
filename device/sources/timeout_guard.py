"""A device whose reader never waits for long: it is opened and read in a thread that can be left behind.

A driver may keep a caller for ever (a camera whose cable came out, a sender that holds the connection and says
nothing), and nothing can interrupt it from outside.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Generic, Protocol, TypeVar

from edgekit.errors import SourceError

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")

# Silence that is worth a word, and silence that counts as loss. A sender that is slow by nature gets more: a multiple
# of the time its latest picture took.
REPORT_S = 1.5
LOST_S = 5.0
_PATIENCE = 4
# A stream's first picture can take several seconds: it waits for a key frame.
FIRST_S = 10.0
# The threads of all devices: one that hangs stays here.
_readers: list[threading.Thread] = []

# The thread of a device that answers is gone within a frame's time.
_CLOSE_S = 1.0


def patience_s(took_s: float | None) -> float:
    """Return after how long a silence a device is lost, when its latest picture took so long (None: it gave none)."""
    return max(LOST_S, min(FIRST_S if took_s is None else took_s * _PATIENCE, FIRST_S))


class Readable(Protocol[T_co]):
    """What can be watched."""

    fps: float | None

    def read(self) -> T_co | None:
        """Return the next picture, or None when the device is lost."""
        ...

    def close(self) -> None:
        """Give the device back."""
        ...


def any_reading() -> bool:
    """Return whether the thread of any device still runs.

    Python must not be taken down beside one: when the driver lets it go in that moment, the process aborts.
    """
    return any(thread.is_alive() for thread in _readers)


class WatchedDevice(Generic[T]):
    """Reads as the device does, but tells of silence and takes a long one for the device's loss."""

    def __init__(
        self, connect: Callable[[], Readable[T]], name: str, notify: Callable[[str], None], open_within_s: float
    ) -> None:
        """Open the device with `connect`; `notify` is told when it is silent, and when it goes on.

        Raises:
            SourceError: It has not opened within `open_within_s`; when it does after all it is given back.
            Exception: What `connect` raised.
        """
        self._name = name
        self._notify = notify
        self._took_s: float | None = None
        self._opened: SimpleQueue[float | BaseException | None] = SimpleQueue()
        self._asked: SimpleQueue[bool] = SimpleQueue()
        self._answers: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, args=[connect], name=f"read {name}", daemon=True)
        self._thread.start()
        _readers[:] = [*(thread for thread in _readers if thread.is_alive()), self._thread]
        try:
            opened = self._opened.get(timeout=open_within_s)
        except Empty:
            self._asked.put(False)
            raise SourceError(f"{name} does not answer: it has not opened within {open_within_s:g} s") from None
        except BaseException:  # a signal: nobody will ask for its pictures
            self._asked.put(False)
            raise
        if isinstance(opened, BaseException):
            raise opened
        self.fps = opened

    def read(self) -> T | None:
        """Return the next picture, None when the device is lost or silent for too long.

        Raises:
            Exception: What the device's read raised.
        """
        started_s, silent = time.monotonic(), False
        usual_s = FIRST_S if self._took_s is None else self._took_s * _PATIENCE
        report_s = max(REPORT_S, min(usual_s, FIRST_S))
        self._asked.put(True)
        try:
            picture, error = self._answers.get(timeout=report_s)
        except Empty:
            silent = True
            self._notify(f"{self._name} has given no picture for {report_s:.1f} s")
            try:
                picture, error = self._answers.get(timeout=max(LOST_S - report_s, 0))
            except Empty:
                return None
            if picture is not None:
                self._notify(f"{self._name} goes on after {time.monotonic() - started_s:.1f} s")
        if error is not None:
            raise error
        if not silent:
            self._took_s = time.monotonic() - started_s
        return picture

    def close(self) -> None:
        """Give the device back; one that does not answer is given back when it does."""
        self._asked.put(False)
        self._thread.join(_CLOSE_S)

    def _serve(self, connect: Callable[[], Readable[T]]) -> None:
        try:
            device = connect()
        except BaseException as error:  # raised again where it is waited for
            self._opened.put(error)
            return
        try:
            self._opened.put(device.fps)
            while self._asked.get():
                try:
                    self._answers.put((device.read(), None))
                except BaseException as error:  # as above
                    self._answers.put((None, error))
        finally:
            device.close()
