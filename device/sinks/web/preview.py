"""JPEG images for the viewers of the web page: one encoding serves all viewers, and none is done without a viewer."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass

import cv2

from edgekit.device.annotate import Draw, draw_faces
from edgekit.device.blur import FaceBlur, hide_boxes
from edgekit.device.detections import FrameResult
from edgekit.device.frame import Frame
from edgekit.device.imaging import at_most
from edgekit.device.worker import Worker
from edgekit.preprocess import ImageU8

_MAX_SIDE_PX = 960
_JPEG_QUALITY = 75


@dataclass(frozen=True)
class EncodedImage:
    """A frame as JPEG; `version` counts the encoded frames."""

    version: int
    jpeg: bytes


class Preview:
    """Holds the newest frame, which a thread encodes at a limited rate while there are viewers.

    The pipeline's thread calls `offer`; the event loop calls `join`, `next` and `leave`.

    Attributes:
        viewers: Number of viewers.
        closing: Whether `stop` was called.
        encoded: Number of encoded frames.
    """

    def __init__(self, max_fps: float, blur: FaceBlur | None, draw: Draw = draw_faces) -> None:
        self._period_s = 1 / max_fps
        self._changed = threading.Condition()
        self._newest: tuple[Frame, FrameResult] | None = None
        self._blur = blur
        self._draw = draw
        self.viewers = 0
        self.closing = False
        self._image: EncodedImage | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._image_ready: asyncio.Event | None = None
        self._thread = Worker(self._work, "preview")
        self.encoded = 0

    def start(self) -> None:
        """Start the encoding thread."""
        self._thread.start()

    def end(self) -> None:
        """Let the encoding thread and the streams of all viewers end."""
        with self._changed:
            self.closing = True
            self._changed.notify()
        self._announce()

    def stop(self) -> None:
        """End the encoding thread and the streams of all viewers."""
        self.end()
        self._thread.join(1.0)

    def offer(self, frame: Frame, result: FrameResult) -> None:
        """Replace the newest frame, without waiting; raises the exception of the encoding thread, if there was one."""
        self._thread.check()
        with self._changed:
            if self._blur is not None:
                self._blur.update(frame, result)
            self._newest = (frame, result)
            if self.viewers:
                self._changed.notify()

    def join(self) -> None:
        """Add a viewer; called on the event loop."""
        self._loop = asyncio.get_running_loop()
        with self._changed:
            self.viewers += 1
            self._changed.notify()

    def leave(self) -> None:
        """Remove a viewer."""
        with self._changed:
            self.viewers -= 1
            if not self.viewers:
                self._image = None

    async def next(self, after_version: int) -> EncodedImage | None:
        """Wait for an image later than `after_version` and return the newest; None after `stop`."""
        while True:
            if self.closing:
                return None
            image = self._image
            if image is not None and image.version > after_version:
                return image
            if self._image_ready is None or self._image_ready.is_set():
                self._image_ready = asyncio.Event()
            await self._image_ready.wait()

    def _work(self) -> None:
        while (taken := self._take()) is not None:
            started_s = time.monotonic()
            jpeg = self._encode(*taken)
            self.encoded += 1
            with self._changed:
                # If the last viewer has left meanwhile, a later viewer must not see this old image.
                self._image = EncodedImage(self.encoded, jpeg) if self.viewers else None
            self._announce()
            self._pause(started_s + self._period_s)

    def _take(self) -> tuple[ImageU8, FrameResult] | None:
        """Wait for a frame and a viewer, and return the image with its result; None after `stop`."""
        with self._changed:
            while not self.closing and (self._newest is None or not self.viewers):
                self._changed.wait()
            if self.closing or self._newest is None:
                return None
            (frame, result), self._newest = self._newest, None
            boxes = self._blur.boxes() if self._blur is not None else []
        image = frame.image_bgr
        return (hide_boxes(image, boxes) if boxes else image), result

    def _encode(self, image_bgr: ImageU8, result: FrameResult) -> bytes:
        drawn = at_most(self._draw(image_bgr, result.faces), _MAX_SIDE_PX)
        return cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()

    def _pause(self, until_s: float) -> None:
        with self._changed:
            while not self.closing and (left_s := until_s - time.monotonic()) > 0:
                self._changed.wait(left_s)

    def _announce(self) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._wake_viewers)

    def _wake_viewers(self) -> None:
        if self._image_ready is not None:
            self._image_ready.set()
