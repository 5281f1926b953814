"""JPEG images of single frames, such as those of events, in a folder whose number and size of images are bounded.

The modification times of the files are the order in which they were written, and so in which they are deleted: each is
later than the previous one, also if the board's clock goes back. The names have the times of capture.
"""

from __future__ import annotations

import os
import queue
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import cv2

from edgekit.device.accounting import ENCODER_TOO_SLOW, NOT_WRITABLE, Account
from edgekit.device.annotate import Draw, draw_faces
from edgekit.device.blur import FaceBlur, Xyxy, hide_boxes
from edgekit.device.detections import FrameResult
from edgekit.device.events import Event
from edgekit.device.frame import Frame
from edgekit.device.imaging import at_most
from edgekit.device.sinks.disk_reserve import DISK_RESERVE, never_low
from edgekit.device.sinks.rotation import Outage
from edgekit.device.sinks.worker import Worker
from edgekit.errors import InputError, StorageError
from edgekit.files import remove_folder_leftovers, write_atomic

_MAX_SIDE_PX = 1280
_JPEG_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 85]
# Few frames are queued because they are large.
_MAX_QUEUED = 4
_CLOSE_TIMEOUT_S = 1.5
# How long an outlet waits for the image of its event.
_WAIT_S = 2.0
# The smallest step of modification times: FAT stores every second one.
_STEP_NS = 2_000_000_000
# Only files with such a name are ever deleted: time, label, id of run and image.
_NAME = re.compile(r"\d{8}T\d{6}\.\d{3}Z-[\w-]*-[0-9a-f]+-\d+\.jpg", re.ASCII)


class Snapshots:
    """Encodes and writes images in a thread. The oldest ones of the folder are deleted to keep the limits.

    Attributes:
        what: The images in warnings.
        account_name: The images in the account and in errors.
        account: The images that were requested, written and dropped.
    """

    what: str
    account_name: str

    def __init__(
        self,
        folder: Path,
        notify: Callable[[str], None],
        *,
        max_files: int = 1000,
        max_bytes: int = 200_000_000,
        blur: FaceBlur | None = None,
        draw: Draw = draw_faces,
        is_disk_low: Callable[[], bool] = never_low,
    ) -> None:
        """Prepare to write; the folder is created with the first image.

        Args:
            folder: Where the images are stored. Other files in it are left alone.
            notify: Called with one line for each warning, from another thread.
            max_files: Largest number of images.
            max_bytes: Largest size of all images together.
            blur: Makes faces unrecognisable; must not be shared with another sink.
            draw: Draws the faces into a frame.
            is_disk_low: Whether images are dropped.

        Raises:
            InputError: `folder` is a file.
        """
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{self.account_name}: '{folder}' is not a folder: name another place")
        self._folder = folder
        self._max_files = max_files
        self._max_bytes = max_bytes
        self._blur = blur
        self._draw = draw
        self._is_disk_low = is_disk_low
        self._outage = Outage(f"{self.what} to '{folder}'", notify)
        self._queue: queue.Queue[tuple[str, Frame, FrameResult, list[Xyxy]] | None] = queue.Queue(_MAX_QUEUED)
        self._changed = threading.Condition()
        self._waiting: set[str] = set()
        self._stored: deque[tuple[str, int]] = deque()
        self._stored_bytes = 0
        self._latest_ns = 0
        self._thread = Worker(self._work, "snapshots")
        self.account = Account(self.account_name)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Write the queued images, for a short time. Raises the exception of the thread, if any."""
        self._thread.finish(self._queue, _CLOSE_TIMEOUT_S)
        self.account.close(ENCODER_TOO_SLOW)
        self._thread.check()

    def update(self, frame: Frame, result: FrameResult) -> None:
        """Keep the boxes to blur; must be called for every frame. Raises the exception of the thread, if any."""
        self._thread.check()
        if self._blur is not None:
            self._blur.update(frame, result)

    def save(self, name: str, frame: Frame, result: FrameResult) -> bool:
        """Queue a frame to be written as `name`; return False if the thread is too slow for it."""
        self.account.produce()
        hidden = self._blur.boxes() if self._blur is not None else []
        with self._changed:
            self._waiting.add(name)
        try:
            self._queue.put_nowait((name, frame, result, hidden))
        except queue.Full:
            self._done(name)
            self.account.drop(ENCODER_TOO_SLOW)
            return False
        return True

    def jpeg(self, name: str) -> bytes | None:
        """Return an image by its name, after waiting for it for up to two seconds; None if it is not there."""
        with self._changed:
            self._changed.wait_for(lambda: name not in self._waiting, _WAIT_S)
        try:
            return (self._folder / name).read_bytes()
        except OSError:
            return None

    def _work(self) -> None:
        self._find_stored()
        while (item := self._queue.get()) is not None:
            name, frame, result, hidden = item
            try:
                if self._is_disk_low():
                    self.account.drop(DISK_RESERVE)
                    continue
                self._write(name, frame, result, hidden)
            except (StorageError, OSError) as error:
                self.account.drop(NOT_WRITABLE)
                self._outage.begin(str(error))
            else:
                self.account.write()
                self._outage.end("")
            finally:
                self._done(name)

    def _write(self, name: str, frame: Frame, result: FrameResult, hidden_xyxy: list[Xyxy]) -> None:
        image = hide_boxes(frame.image_bgr, hidden_xyxy) if hidden_xyxy else frame.image_bgr
        drawn = at_most(self._draw(image, result.faces), _MAX_SIDE_PX)
        data = cv2.imencode(".jpg", drawn, _JPEG_QUALITY)[1].tobytes()
        write_atomic(self._folder / name, data)
        self._latest_ns = max(time.time_ns(), self._latest_ns + _STEP_NS)
        with suppress(OSError):
            os.utime(self._folder / name, ns=(self._latest_ns, self._latest_ns))
        self._stored.append((name, len(data)))
        self._stored_bytes += len(data)
        # Last, so that a disk to which nothing can be written keeps the older images.
        self._delete_oldest()

    def _delete_oldest(self) -> None:
        """Delete images until the limits are kept; what a failing disk does not delete is tried with the next image."""
        with suppress(OSError):
            while len(self._stored) > self._max_files or (
                len(self._stored) > 1 and self._stored_bytes > self._max_bytes
            ):
                name, oldest_bytes = self._stored[0]
                (self._folder / name).unlink(missing_ok=True)
                self._stored.popleft()
                self._stored_bytes -= oldest_bytes

    def _find_stored(self) -> None:
        """Count the images of earlier runs, and remove what a power cut left of others."""
        with suppress(OSError):
            remove_folder_leftovers(self._folder, ".jpg")
            found = []
            for path in self._folder.iterdir():
                if _NAME.fullmatch(path.name):
                    with suppress(OSError):  # deleted in this moment, or damaged
                        status = path.stat()
                        found.append((status.st_mtime_ns, path.name, status.st_size))
            self._stored.extend((name, size_bytes) for _, name, size_bytes in sorted(found))
            self._latest_ns = max((time_ns for time_ns, _, _ in found), default=0)
        self._stored_bytes = sum(size_bytes for _, size_bytes in self._stored)

    def _done(self, name: str) -> None:
        with self._changed:
            self._waiting.discard(name)
            self._changed.notify_all()


class EventSnapshots(Snapshots):
    """Writes the frames of events."""

    what = "snapshots of events"
    account_name = "event snapshots"

    def take(self, event: Event, frame: Frame, result: FrameResult) -> Event:
        """Queue the frame of an event and return the event with the name of its image; without one, if it is busy."""
        name = image_name(event.wall_s, event.label, event.event_id, event.clock_synchronised)
        return replace(event, snapshot=name) if self.save(name, frame, result) else event


def image_name(wall_s: float, label: str, image_id: str, clock_synchronised: bool = True) -> str:
    """Return the file name of an image: its time, a label, and an id RUN-NUMBER that is unique across runs.

    The label of an image whose time may be wrong has the prefix "unsynchronised-".
    """
    taken = datetime.fromtimestamp(wall_s, UTC)
    label = ("" if clock_synchronised else "unsynchronised-") + re.sub(r"[^A-Za-z0-9_-]", "_", label)[:40]
    return f"{taken:%Y%m%dT%H%M%S}.{taken.microsecond // 1000:03}Z-{label}-{image_id}.jpg"
