"""Live sources: a thread reads the device continuously and keeps only the newest frame."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, Self, TypeAlias, TypeVar

from edgekit.device.frame import Frame, Planes
from edgekit.device.stages import Worker
from edgekit.errors import EdgekitError, SourceError
from edgekit.preprocess import ImageU8
from edgekit.text import one_line

_T = TypeVar("_T")

# Pause before each attempt to reopen a lost device. The source fails after the last attempt.
REOPEN_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
# No attempt begins later than this after the loss, so that a run ends with complete recordings before the service
# watchdog ends it (service/__init__.py).
LAST_ATTEMPT_S = 25.0
# A driver that blocks a call for longer never returns, as after a cable is unplugged: the source fails. Longer than the
# time-outs of the drivers.
HANGS_S = 20.0
# A larger age means that the time stamp is from another clock.
_MAX_AGE_S = 10.0
# Longest delay until a waiting thread notices `stop`.
_POLL_S = 0.1
# Closing the source does not wait longer for a blocked call; the device is closed when the call returns.
JOIN_S = 1.0


@dataclass(frozen=True)
class CapturedImage:
    """An image with its capture time.

    Attributes:
        picture: uint8 (H, W, 3) B, G, R, or the planes that the camera delivered.
        taken_s: Capture time on the clock of `time.monotonic`. None, or a time in the future or long ago, which is from
            another clock: the time of reading.
        small: The same view with fewer pixels; only if `picture` is planes.
    """

    picture: ImageU8 | Planes
    taken_s: float | None = None
    small: Planes | None = None


# A device returns an image, uint8 (H, W, 3) B, G, R, or a `CapturedImage`.
Picture: TypeAlias = ImageU8 | CapturedImage


class Device(Protocol):
    """An open camera or stream, used by one thread."""

    fps: float | None

    def read(self) -> Picture | None:
        """Return the next image, or None if the device is lost."""

    def close(self) -> None:
        """Release the device."""


class LiveSource:
    """The newest frames of a camera or stream; older ones are dropped and counted.

    A device that is lost is reopened up to five times with growing pauses. Between `release` and `reacquire` the device
    is closed. `notify` receives a line for each loss and for each reopened device.
    """

    fps: float | None = None
    frame_count = None
    live = True
    skipped = 0

    def __init__(self, name: str, connect: Callable[[], Device], notify: Callable[[str], None]) -> None:
        """Open the device with `connect` and read its first image.

        Raises:
            SourceError: The device cannot be opened, or delivers no image.
        """
        self.name = name
        self.dropped = 0
        self._connect = connect
        self._notify = notify
        self._stopping = False
        self._released = False  # `release` was called, and no `reacquire` since
        # The newest frame, until the consumer takes it; `_news` guards it and is notified of a new one.
        self._slot: Frame | None = None
        self._news = threading.Condition()
        self._captured = 0  # frames so far: the number of the next one
        self._device: Device | None = None
        # When the driver was called, if it has not returned yet; otherwise infinity.
        self._driver_called_s = math.inf
        self._thread = Worker(self._capture, f"read {name}")
        self._thread.start()
        try:
            self._wait()
        except BaseException:  # also that of a signal handler
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
        self._thread.join(JOIN_S)

    def stop(self) -> None:
        """End the iteration before its next frame."""
        # A polled flag: a signal handler may run while its own thread holds the lock of the condition.
        self._stopping = True

    def release(self) -> None:
        """Close the device after its current image, so that another program may use it; drop the waiting frame."""
        with self._news:
            self._released = True
            self.dropped += self._slot is not None
            self._slot = None

    def reacquire(self) -> None:
        """Open a released device again; if that fails, it counts as lost."""
        self._released = False

    def __iter__(self) -> Iterator[Frame]:
        """Yield the newest frame, each at most once.

        Raises:
            SourceError: The device does not respond, or was lost and could not be reopened.
        """
        while True:
            self._wait()
            with self._news:
                frame, self._slot = self._slot, None
            if self._stopping:
                return
            if frame is not None:  # `release` may have dropped it
                yield frame

    def _wait(self) -> None:
        """Wait for a frame or for `stop`; raises as `__iter__`."""
        with self._news:
            while self._slot is None and not self._stopping:
                if not self._thread.is_alive():
                    self._thread.check()  # raises the error that ended the thread
                if time.monotonic() - self._driver_called_s > HANGS_S:
                    raise SourceError(f"{self.name} has not responded for {HANGS_S:g} s: check cable and sender")
                self._news.wait(_POLL_S)

    def _put(self, picture: Picture) -> None:
        """Make an image the newest frame; a frame that still waits is dropped."""
        frame = _frame(self._captured, picture)
        with self._news:
            if self._released:
                # A pause began during the read, see `release`.
                return
            self._captured += 1
            self.dropped += self._slot is not None
            self._slot = frame
            self._news.notify()

    def _capture(self) -> None:
        """Open the device and read it until `stop`; this is the work of the thread."""
        try:
            image: Picture | None = self._open()
            while not self._stopping:
                if image is not None:
                    self._put(image)
                image = self._after_release() if self._released else self._read()
                # None: the device is lost, or could not be opened after a release.
                if image is None and not self._stopping:
                    image = self._reopen()
        finally:
            self._close()

    def _after_release(self) -> Picture | None:
        """Close the device, and return the first image after `reacquire`; None if it is lost, or after `stop`."""
        self._close()
        while self._released:
            if not self._sleep(_POLL_S):  # stopped
                return None
        try:
            return self._open()
        except EdgekitError:
            return None  # `_capture` then reopens it, with pauses and messages

    def _reopen(self) -> Picture | None:
        """Return the first image of the reopened device, or None if `stop` was called."""
        self._close()
        self._notify(f"{self.name} was lost after {self._captured} frames: reopening it")
        reason, attempts, lost_s = "", 0, time.monotonic()
        for pause_s in REOPEN_PAUSES_S:
            if not self._sleep(pause_s):
                return None  # `stop` was called
            if time.monotonic() - lost_s > LAST_ATTEMPT_S:
                break
            attempts += 1
            try:
                image = self._open()
            except EdgekitError as error:
                reason = str(error)
            else:
                self._notify(f"{self.name} was reopened")
                return image
        raise SourceError(f"{self.name} was lost and could not be reopened in {attempts} attempts: {reason}")

    def _open(self) -> Picture:
        """Open the device and return its first image."""
        self._device = self._call(self._connect)
        self.fps = self._device.fps
        # The first image shows that the device works: some open without a camera that sends.
        image = self._read()
        if image is None:
            self._close()
            raise SourceError(
                f"{self.name} was opened but delivers no image: check that it is sending and that no other program "
                "uses it"
            )
        return image

    def _read(self) -> Picture | None:
        """Return the next image, or None if the device is lost or closed."""
        return None if self._device is None else self._call(self._device.read)

    def _close(self) -> None:
        """Close the device, if one is open; an error of its driver is reported only."""
        device, self._device = self._device, None
        if device is not None:
            try:
                self._call(device.close)
            except Exception as error:  # the driver of a lost camera may fail; picamera2 raises classes of its own
                self._notify(f"{self.name} could not be closed: {one_line(str(error))}")

    def _call(self, driver: Callable[[], _T]) -> _T:
        """Call the driver, and meanwhile record since when, so that `_wait` detects a call that hangs."""
        self._driver_called_s = time.monotonic()
        try:
            return driver()
        finally:
            self._driver_called_s = math.inf

    def _sleep(self, pause_s: float) -> bool:
        """Wait; return False as soon as `stop` is called."""
        end_s = time.monotonic() + pause_s
        while not self._stopping and (left_s := end_s - time.monotonic()) > 0:
            time.sleep(min(left_s, _POLL_S))
        return not self._stopping


def _frame(sequence: int, image: Picture) -> Frame:
    """Return the frame of an image that was just read, with its capture time.

    Without a capture time, or if it is of another clock than `time.monotonic`, this is the time now.
    """
    now_s, wall_s = time.monotonic(), time.time()
    if not isinstance(image, CapturedImage):
        return Frame(sequence, now_s, wall_s, image)
    taken_s = image.taken_s
    # A negative age means another clock, too.
    if taken_s is None or not 0 <= now_s - taken_s <= _MAX_AGE_S:
        taken_s = now_s
    age_s = now_s - taken_s
    return Frame(sequence, taken_s, wall_s - age_s, image.picture, small=image.small)
