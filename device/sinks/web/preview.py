"""Pictures for viewers: each encoded once however many watch, and none at all when nobody does."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass

import cv2
import numpy as np

from edgekit.device.annotate import draw_faces
from edgekit.device.blur import FaceBlur, hide_boxes
from edgekit.device.detections import FrameResult
from edgekit.device.frame import Frame
from edgekit.device.sinks.worker import Worker
from edgekit.preprocess import ImageU8

_LONGEST_SIDE_PX = 960
_JPEG_QUALITY = 75


@dataclass(frozen=True)
class Picture:
    """An encoded frame; `version` counts the pictures."""

    version: int
    jpeg: bytes


class Preview:
    """The newest frame, and a thread that encodes it at a bounded rate while there are viewers.

    The pipeline's thread offers, the event loop's thread watches.
    """

    def __init__(self, max_fps: float, blur: FaceBlur | None) -> None:
        self._period_s = 1 / max_fps
        self._news = threading.Condition()
        self._newest: tuple[Frame, FrameResult] | None = None
        self._blur = blur
        self._viewers = 0
        self._closing = False
        self._picture: Picture | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._arrival: asyncio.Event | None = None
        self._thread = Worker(self._work, "preview")
        self.encoded = 0

    @property
    def viewers(self) -> int:
        """How many watch."""
        return self._viewers

    @property
    def closing(self) -> bool:
        """Whether the run is about to end."""
        return self._closing

    def start(self) -> None:
        """Start the encoder's thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the encoder and every viewer's stream."""
        with self._news:
            self._closing = True
            self._news.notify()
        self._announce()
        self._thread.join(1.0)

    def offer(self, frame: Frame, result: FrameResult) -> None:
        """Take the newest frame; returns at once. Raises what ended the encoder, if something did."""
        self._thread.check()
        with self._news:
            if self._blur is not None:
                self._blur.see(frame, result)
            self._newest = (frame, result)
            if self._viewers:
                self._news.notify()

    def join(self) -> None:
        """Count a viewer in; on the event loop."""
        self._loop = asyncio.get_running_loop()
        with self._news:
            self._viewers += 1
            self._news.notify()

    def leave(self) -> None:
        """Count a viewer out."""
        with self._news:
            self._viewers -= 1
            if not self._viewers:
                # As in `_work`.
                self._picture = None

    async def next(self, after_version: int) -> Picture | None:
        """Return the newest picture once there is one later than `after_version`; None at the end."""
        while True:
            if self._closing:
                return None
            picture = self._picture
            if picture is not None and picture.version > after_version:
                return picture
            if self._arrival is None or self._arrival.is_set():
                self._arrival = asyncio.Event()
            await self._arrival.wait()

    def _work(self) -> None:
        while (taken := self._take()) is not None:
            began_s = time.monotonic()
            jpeg = self._encode(*taken)
            self.encoded += 1
            with self._news:
                # The last viewer may have left meanwhile: the picture is not for the next one, hours later maybe.
                self._picture = Picture(self.encoded, jpeg) if self._viewers else None
            self._announce()
            self._pause(began_s + self._period_s)

    def _take(self) -> tuple[ImageU8, FrameResult] | None:
        """Wait for a frame that somebody wants to see; None at the end."""
        with self._news:
            while not self._closing and (self._newest is None or not self._viewers):
                self._news.wait()
            if self._closing or self._newest is None:
                return None
            (frame, result), self._newest = self._newest, None
            boxes = self._blur.boxes() if self._blur is not None else []
        image = frame.image_bgr
        return (hide_boxes(image, boxes) if boxes else image), result

    def _encode(self, image_bgr: ImageU8, result: FrameResult) -> bytes:
        drawn = draw_faces(image_bgr, result.faces)
        height, width = drawn.shape[:2]
        scale = _LONGEST_SIDE_PX / max(height, width)
        if scale < 1:
            size_wh = (max(1, round(width * scale)), max(1, round(height * scale)))
            drawn = np.asarray(cv2.resize(drawn, size_wh, interpolation=cv2.INTER_AREA), np.uint8)
        return cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()

    def _pause(self, until_s: float) -> None:
        with self._news:
            while not self._closing and (left_s := until_s - time.monotonic()) > 0:
                self._news.wait(left_s)

    def _announce(self) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._wake_viewers)

    def _wake_viewers(self) -> None:
        if self._arrival is not None:
            self._arrival.set()
