"""JPEG images for the viewers of the web page: one encoding serves all viewers, and none is done without a viewer."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import cv2

from edgekit.device.blur import FaceBlur
from edgekit.device.detections import FrameResult
from edgekit.device.frame import Frame
from edgekit.device.imaging import at_most
from edgekit.device.sinks.snapshots import Shot

_MAX_SIDE_PX = 960
_JPEG_QUALITY = 75


@dataclass(frozen=True)
class EncodedImage:
    """A frame as JPEG; `version` counts the encoded frames."""

    version: int
    jpeg: bytes


class Preview:
    """Holds the newest frame, which a viewer's request encodes, at a limited rate.

    The pipeline's thread calls `offer`; the event loop calls `join` and `leave`, and `newest` in another thread.

    Attributes:
        period_s: Shortest time between two encodings.
        viewers: Number of viewers.
        closing: Whether the run ends; the streams of all viewers then end, too.
    """

    def __init__(self, max_fps: float, blur: FaceBlur | None) -> None:
        self.period_s = 1 / max_fps
        self.viewers = 0
        self.closing = False
        self._lock = threading.Lock()
        self._encoding = threading.Lock()
        self._offered: tuple[Frame, FrameResult] | None = None
        self._blur = blur
        self._image: EncodedImage | None = None
        self._encoded_s = float("-inf")

    @property
    def encoded(self) -> int:
        """Number of encoded frames."""
        return 0 if self._image is None else self._image.version

    def offer(self, frame: Frame, result: FrameResult) -> None:
        """Replace the newest frame, without waiting."""
        with self._lock:
            if self._blur is not None:
                self._blur.update(frame, result)
            self._offered = (frame, result)

    def join(self) -> None:
        """Add a viewer."""
        self.viewers += 1

    def leave(self) -> None:
        """Remove a viewer."""
        self.viewers -= 1

    def newest(self) -> EncodedImage | None:
        """Return the newest frame, or the one that was encoded a moment ago; None before the first."""
        with self._encoding:
            if time.monotonic() - self._encoded_s < self.period_s:
                return self._image
            with self._lock:
                offered, self._offered = self._offered, None
                boxes = self._blur.boxes() if self._blur is not None else []
            if offered is not None:
                self._encoded_s = time.monotonic()
                drawn = at_most(Shot(*offered, boxes).drawn(), _MAX_SIDE_PX)
                jpeg = cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()
                self._image = EncodedImage(self.encoded + 1, jpeg)
            return self._image
