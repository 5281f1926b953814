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
        """Encode at most `max_fps` frames per second; `hidden` returns the boxes to make unrecognisable in a frame."""
        self.period_s = 1 / max_fps
        self.viewers = 0
        self.closing = False
        self._hidden = hidden
        self._offered: Shot | None = None  # the newest frame
        # The frame that was encoded last, its image, and when this was.
        self._encoded: Shot | None = None
        self._image: EncodedImage | None = None
        self._encoded_s = float("-inf")
        self._encoding = threading.Lock()  # held by the request that encodes

    @property
    def encoded(self) -> int:
        """Number of encoded frames."""
        return 0 if self._image is None else self._image.version

    def offer(self, frame: Frame, result: FrameResult) -> None:
        """Replace the newest frame, without waiting."""
        self._offered = Shot(frame, result, self._hidden(frame, result))

    def newest(self) -> EncodedImage | None:
        """Return the newest frame as JPEG, or the one that was encoded less than `period_s` ago; None before the first.

        A frame is encoded once for all viewers.
        """
        with self._encoding:
            is_recent = time.monotonic() - self._encoded_s < self.period_s
            offered = self._offered
            if is_recent or offered is None or offered is self._encoded:
                return self._image
            self._encoded, self._encoded_s = offered, time.monotonic()
            drawn = at_most(offered.drawn(), _MAX_SIDE_PX)
            jpeg = cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()
            self._image = EncodedImage(version=self.encoded + 1, jpeg=jpeg)
            return self._image
