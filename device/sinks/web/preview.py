"""JPEG images for the viewers of the web page: one encoding serves all viewers, and none is done without a viewer."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import cv2

from edgekit.device.annotate import Hide, Shot
from edgekit.device.detections import FrameResult
from edgekit.device.frame import Frame
from edgekit.device.imaging import at_most

_MAX_SIDE_PX = 960
_JPEG_QUALITY = 75


@dataclass(frozen=True)
class EncodedImage:
    """A frame as JPEG; `version` counts the encoded frames."""

    version: int
    jpeg: bytes


class Preview:
    """Holds the newest frame, which a viewer's request encodes, at a limited rate.

    The pipeline's thread calls `offer`; the event loop calls `newest` in
    another thread.

    Attributes:
        period_s: Shortest time between two encodings.
        viewers: Number of viewers; only the event loop changes it.
        closing: Whether the run ends; the streams of all viewers then end, too.
    """

    def __init__(self, max_fps: float, hidden: Hide) -> None:
        self.period_s = 1 / max_fps
        self.viewers = 0
        self.closing = False
        self._encoding = threading.Lock()
        self._offered: Shot | None = None
        self._encoded: Shot | None = None
        self._hidden = hidden
        self._image: EncodedImage | None = None
        self._encoded_s = float("-inf")

    @property
    def encoded(self) -> int:
        """Number of encoded frames."""
        return 0 if self._image is None else self._image.version

    def offer(self, frame: Frame, result: FrameResult) -> None:
        """Replace the newest frame, without waiting."""
        self._offered = Shot(frame, result, self._hidden(frame, result))

    def newest(self) -> EncodedImage | None:
        """Return the newest frame, or the one that was encoded a moment ago; None before the first."""
        with self._encoding:
            if time.monotonic() - self._encoded_s < self.period_s:
                return self._image
            offered = self._offered
            if offered is not None and offered is not self._encoded:
                self._encoded, self._encoded_s = offered, time.monotonic()
                drawn = at_most(offered.drawn(), _MAX_SIDE_PX)
                jpeg = cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()
                self._image = EncodedImage(self.encoded + 1, jpeg)
            return self._image
