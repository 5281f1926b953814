"""Frames from a device that will not wait: a thread keeps reading, a slot of one keeps the newest frame."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, Self, TypeAlias

from edgekit.device.frame import Frame
from edgekit.device.sources.timeout_guard import WatchedDevice
from edgekit.device.sources.yuv import Planes
from edgekit.errors import EdgekitError, SourceError
from edgekit.preprocess import ImageU8

# Pauses before each attempt to get a lost device back; after the last attempt the source gives up.
_REOPEN_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
# A host that does not answer takes long to say so at each attempt. Later than this after the loss none begins, so that
# the run ends, with all it recorded, before a service's watchdog ends it (service/spec.py).
LAST_ATTEMPT_S = 25.0
# A driver that hangs while it opens is left behind after so long: at first less than a service has for its start, later
# a little more than a stream's own time-out (opencv.OPEN_TIMEOUT_MS), which has the better reason.
_FIRST_OPEN_S = 90.0
REOPEN_S = 12.0
# How late a request to stop is noticed by a thread that waits.
_POLL_S = 0.1
# A read can hang for as long as the driver likes; leaving must not.
_JOIN_S = 2.0


@dataclass(frozen=True)
class CapturedImage:
    """A picture that knows more than its colours.

    Attributes:
        picture: uint8 (H, W, 3) B, G, R, or the planes the camera gave.
        taken_s: When it was taken, by the clock of `time.monotonic`; None: when it was read.
        small: The same view in fewer pixels, of planes only.
    """

    picture: ImageU8 | Planes
    taken_s: float | None = None
    small: Planes | None = None


# A picture, uint8 (H, W, 3) B, G, R, and what goes with it if there is more to say.
Picture: TypeAlias = ImageU8 | CapturedImage


class Device(Protocol):
    """An opened camera or stream; used by one thread at a time."""

    fps: float | None

    def read(self) -> Picture | None:
        """Return the next picture, or None when the device is lost."""
        ...

    def close(self) -> None:
        """Give the device back."""
        ...


class LiveSource:
    """The newest frame of a camera or stream, at whatever pace it is asked for.

    A device that is lost, or silent for long, is opened again a few times with growing pauses. Every loss is told
    through `notify`, and silence within two seconds.
    """

    frame_count = None
    live = True
    skipped = 0

    def __init__(
        self,
        name: str,
        connect: Callable[[], Device],
        notify: Callable[[str], None],
        cure: str = "check that nothing else uses it and that it is sending",
    ) -> None:
        """Open the device with `connect` and take its first picture; `cure` helps where it gives none.

        Raises:
            SourceError: The device cannot be opened, or opens and gives no picture.
        """
        self.name = name
        self.dropped = 0
        self._connect = connect
        self._cure = cure
        self._notify = notify
        self._stopping = False
        self._news = threading.Condition()
        self._captured = 0
        self._slot: Frame | None = None
        self._failure: BaseException | None = None
        self._device, first = self._open(_FIRST_OPEN_S)
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
        # A plain flag, polled: a signal handler may run while this very thread holds the condition's lock.
        self._stopping = True

    def __iter__(self) -> Iterator[Frame]:
        """Yield the newest frame each time, never one twice.

        Raises:
            SourceError: The device was lost and did not come back.
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
            self._captured += 1
            self.dropped += self._slot is not None
            self._slot = frame
            self._news.notify()

    def _grab(self) -> None:
        try:
            while not self._stopping:
                image = self._device.read()
                if image is None:
                    image = self._reopen()
                if image is not None:
                    self._put(image)
        except BaseException as error:
            # Handed to the thread that iterates: a failure in here must not look like a quiet camera.
            with self._news:
                self._failure = error
                self._news.notify()
        finally:
            self._device.close()

    def _reopen(self) -> Picture | None:
        """Return the first picture after the device came back, or None when asked to stop."""
        self._device.close()
        self._notify(f"{self.name} gives no more pictures after {self._captured}: opening it again")
        reason, attempts, lost_s = "", 0, time.monotonic()
        for pause_s in _REOPEN_PAUSES_S:
            if not self._sleep(pause_s):
                return None
            if time.monotonic() - lost_s > LAST_ATTEMPT_S:
                break
            attempts += 1
            try:
                self._device, image = self._open(REOPEN_S)
            except EdgekitError as error:
                reason = str(error)
            else:
                self._notify(f"{self.name} is back")
                return image
        raise SourceError(f"{self.name} was lost and did not come back in {attempts} attempts: {reason}")

    def _open(self, within_s: float) -> tuple[Device, Picture]:
        device = WatchedDevice[Picture](self._connect, self.name, self._notify, within_s)
        try:
            image = device.read()
        except BaseException:
            device.close()
            raise
        if image is None:
            device.close()
            raise SourceError(f"{self.name} opens but gives no picture: {self._cure}")
        return device, image

    def _sleep(self, pause_s: float) -> bool:
        end_s = time.monotonic() + pause_s
        while not self._stopping and (left_s := end_s - time.monotonic()) > 0:
            time.sleep(min(left_s, _POLL_S))
        return not self._stopping


def _frame(sequence: int, picture: Picture) -> Frame:
    now_s, wall_s = time.monotonic(), time.time()
    if not isinstance(picture, CapturedImage):
        return Frame(sequence, now_s, wall_s, picture)
    taken_s = now_s if picture.taken_s is None else min(picture.taken_s, now_s)
    wall_s -= now_s - taken_s
    return Frame(sequence, taken_s, wall_s, picture.picture, small=picture.small)
