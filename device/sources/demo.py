"""The bundled demo clip: moving views of one portrait, computed frame by frame."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np

from edgekit.device.frame import Frame, RecordedSource
from edgekit.device.imaging import read_image
from edgekit.model_store import asset
from edgekit.preprocess import ImageU8

_FPS = 25.0
_SIZE_WH = (640, 480)

# Camera path over the portrait (512 x 512 px): a slow ellipse around the face, with a little zoom and roll.
_CENTRE_XY = (222.0, 130.0)
_PAN_XY = (20.0, 8.0)
_ZOOM, _ZOOM_SWING = 2.05, 0.12
_ROLL_DEGREES = 4.0


class DemoSource(RecordedSource):
    """Six seconds of a smiling face, 640 x 480 at 25 fps, with identical frames in every run."""

    name = "demo"
    fps = _FPS
    frame_count = 150

    def __init__(self) -> None:
        self._portrait_bgr = read_image(asset("astronaut.png"))

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames; the capture time is the time of computation."""
        for sequence in range(self.frame_count):
            if self._stopped:
                return
            image = _view(self._portrait_bgr, sequence / self.frame_count)
            yield Frame(sequence, time.monotonic(), time.time(), image, position_s=sequence / self.fps)


def open_demo(_uri: str, _notify: Callable[[str], None]) -> DemoSource:
    """Return the demo clip; the arguments are ignored."""
    return DemoSource()


def _view(portrait_bgr: ImageU8, progress: float) -> ImageU8:
    """Return the frame, uint8 (480, 640, 3) B, G, R, at `progress` from 0 (first frame) to 1 (end of the clip)."""
    angle = 2 * math.pi * progress
    centre_x = _CENTRE_XY[0] + _PAN_XY[0] * math.sin(angle)
    centre_y = _CENTRE_XY[1] + _PAN_XY[1] * math.cos(angle)
    zoom = _ZOOM + _ZOOM_SWING * math.sin(2 * angle)
    matrix = cv2.getRotationMatrix2D((centre_x, centre_y), _ROLL_DEGREES * math.sin(angle), zoom)
    # The centre of the rotation comes to the middle of the frame.
    matrix[:, 2] += np.array([_SIZE_WH[0] / 2 - centre_x, _SIZE_WH[1] / 2 - centre_y])
    view = cv2.warpAffine(portrait_bgr, matrix, _SIZE_WH, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(view, np.uint8)
