"""Live sources: a thread reads the device continuously and keeps only the newest frame."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Self, TypeAlias

from edgekit.device.frame import Frame
from edgekit.device.sources.timeout_guard import Readable, TimeoutGuard
from edgekit.device.sources.yuv import Planes
from edgekit.errors import EdgekitError, SourceError
from edgekit.preprocess import ImageU8

# Pause before each attempt to reopen a lost device. The source fails after the last attempt.
_REOPEN_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
# No attempt begins later than this after the loss: each can take until its own time-out, and the run must end with its
# recordings complete before the service watchdog ends it (service/spec.py).
LAST_ATTEMPT_S = 25.0
# Time-outs for opening a device: at the start, shorter than a service's start time-out; after a loss, a little longer
# than the time-out of a stream (opencv.OPEN_TIMEOUT_MS), because the stream's error names the reason.
_FIRST_OPEN_S = 90.0
REOPEN_S = 12.0
# A larger age means that the time stamp is from another clock.
_MAX_AGE_S = 10.0
# Longest delay until a waiting thread notices `stop`.
_POLL_S = 0.1
# A driver may block a read for ever; closing the source must not wait for it.
_JOIN_S = 2.0


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
# An open camera or stream, used by one thread at a time.
Device: TypeAlias = Readable[Picture]


class LiveSource:
    """The newest frames of a camera or stream; older ones are dropped and counted.

    A device that is lost, or delivers nothing for several seconds, is reopened up to five times with growing pauses.
    Between `release` and `reacquire` the device is closed.
    `notify` receives a line for each loss and for each reopened device.
    """

    frame_count = None
    live = True
    skipped = 0

    def __init__(
        self,
        name: str,
        connect: Callable[[], Device],
        notify: Callable[[str], None],
        cure: str = "check that it is sending and that no other program uses it",
    ) -> None:
        """Open the device with `connect` and read its first image; `cure` is the advice if there is no image.

        Raises:
            SourceError: The device cannot be opened, or delivers no image.
        """
        self.name = name
        self.dropped = 0
        self._connect = connect
        self._cure = cure
        self._notify = notify
        self._stopping = False
        self._released = False
        self._news = threading.Condition()
        self._captured = 0
        self._slot: Frame | None = None
        self._failure: BaseException | None = None
        first = self._open(_FIRST_OPEN_S)
        self.fps = self._device.fps
        self._put(first)
        self._thread = threading.Thread(target=self._grab, name=f"grab {name}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
        self._thread.join(_JOIN_S)

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
            SourceError: The device was lost and could not be reopened.
        """
        while (frame := self._take()) is not None:
            yield frame

    def _take(self) -> Frame | None:
        with self._news:
            while self._slot is None and self._failure is None and not self._stopping:
                self._news.wait(_POLL_S)
            if self._stopping:
                return None
            if self._slot is None and self._failure is not None:
                raise self._failure
            frame, self._slot = self._slot, None
            return frame

    def _put(self, picture: Picture) -> None:
        frame = _frame(self._captured, picture)
        with self._news:
            if self._released:
                return
            self._captured += 1
            self.dropped += self._slot is not None
            self._slot = frame
            self._news.notify()

    def _grab(self) -> None:
        try:
            while not self._stopping:
                image = self._after_release() if self._released else self._device.read()
                if image is None and not self._stopping:
                    image = self._reopen()
                if image is not None:
                    self._put(image)
        except BaseException as error:
            # Raised again in the thread that iterates.
            with self._news:
                self._failure = error
                self._news.notify()
        finally:
            self._device.close()

    def _after_release(self) -> Picture | None:
        """Close the device, and return the first image after `reacquire`; None if there is none."""
        self._device.close()
        while self._released:
            if not self._sleep(_POLL_S):
                return None
        with suppress(EdgekitError):
            return self._open(REOPEN_S)
        return None

    def _reopen(self) -> Picture | None:
        """Return the first image of the reopened device, or None if `stop` was called."""
        self._device.close()
        self._notify(f"{self.name} was lost after {self._captured} frames: reopening it")
        reason, attempts, lost_s = "", 0, time.monotonic()
        for pause_s in _REOPEN_PAUSES_S:
            if not self._sleep(pause_s):
                return None
            if time.monotonic() - lost_s > LAST_ATTEMPT_S:
                break
            attempts += 1
            try:
                image = self._open(REOPEN_S)
            except EdgekitError as error:
                reason = str(error)
            else:
                self._notify(f"{self.name} was reopened")
                return image
        raise SourceError(f"{self.name} was lost and could not be reopened in {attempts} attempts: {reason}")

    def _open(self, within_s: float) -> Picture:
        """Open the device as `_device` and return its first image."""
        device = TimeoutGuard[Picture](self._connect, self.name, self._notify, within_s)
        with ExitStack() as failed:
            failed.callback(device.close)
            image = device.read()
            if image is None:
                raise SourceError(f"{self.name} was opened but delivers no image: {self._cure}")
            failed.pop_all()
        self._device = device
        return image

    def _sleep(self, pause_s: float) -> bool:
        end_s = time.monotonic() + pause_s
        while not self._stopping and (left_s := end_s - time.monotonic()) > 0:
            time.sleep(min(left_s, _POLL_S))
        return not self._stopping


def _frame(sequence: int, picture: Picture) -> Frame:
    now_s, wall_s = time.monotonic(), time.time()
    if not isinstance(picture, CapturedImage):
        return Frame(sequence, now_s, wall_s, picture)
    taken_s = picture.taken_s
    if taken_s is None or not 0 <= now_s - taken_s <= _MAX_AGE_S:
        taken_s = now_s
    return Frame(sequence, taken_s, wall_s - (now_s - taken_s), picture.picture, small=picture.small)
