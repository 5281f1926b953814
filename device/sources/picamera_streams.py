"""The two streams of a Pi's camera: how large the detector's is beside the main one, and how their buffers lie."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgekit.device.region import detector_input_px
from edgekit.device.sources.settings import CameraSettings
from edgekit.device.sources.yuv import Layout, Planes, split_planes
from edgekit.errors import SourceError

# Every Raspberry Pi's camera hardware makes it; others (libcamera's virtual camera, USB ones) may answer with NV12.
FORMAT = "YUV420"
_LAYOUTS: dict[str, Layout] = {"YUV420": "i420", "NV12": "nv12"}
# The detector's stream is no smaller on its longer side: faces are followed in it too.
_SMALL_SIDE_PX = 320


class Stream:
    """How a stream's buffers are laid out."""

    def __init__(self, stream: dict[str, Any], full_range: bool, name: str) -> None:
        if stream["format"] not in _LAYOUTS:
            raise SourceError(
                f"{name} gives pictures of format {stream['format']} instead of {FORMAT}: try --camera usb"
            )
        self._layout = _LAYOUTS[stream["format"]]
        self._size_wh = (int(stream["size"][0]), int(stream["size"][1]))
        self._stride = int(stream["stride"])
        self._full_range = full_range

    def planes(self, buffer: Any) -> Planes:
        """Return the luma and chroma in a buffer, without copying.

        Raises:
            SourceError: It is too small for them.
        """
        data = np.asarray(buffer, np.uint8).reshape(-1)
        return split_planes(data, self._size_wh, self._stride, self._layout, self._full_range)


def small_size(size_wh: tuple[int, int], detector_px: int) -> tuple[int, int] | None:
    """Return the size of the detector's stream beside a main one; None where the main one is small enough.

    Its longer side is at least `detector_px`: a detector that was asked for more would see enlarged pixels.

    A whole fraction of the main size where that gives even numbers, so that both show exactly the same.
    """
    step = math.floor(max(size_wh) / max(detector_px, _SMALL_SIDE_PX))
    if step < 2:
        return None
    return size_wh[0] // step // 2 * 2, size_wh[1] // step // 2 * 2


def whole_picture_px(size_wh: tuple[int, int], settings: CameraSettings) -> int:
    """Return the longer side of a picture of the whole view in which the region has the pixels the detector takes.

    Raises:
        InputError: The region does not lie inside the frame.
    """
    seen_wh = size_wh
    if settings.region is not None:
        turned_wh = size_wh if settings.rotation in (0, 180) else size_wh[::-1]
        left, top, right, bottom = settings.region.xyxy(turned_wh)
        seen_wh = right - left, bottom - top
    detector_px = settings.detector_px or detector_input_px(seen_wh, settings.min_face_px)
    return math.ceil(detector_px * max(size_wh) / max(seen_wh))


def streams_of(configuration: Any, name: str) -> dict[str, Stream]:
    """Return "main", and "lores" where there is one, of a configuration of picamera2; `name` is the camera's.

    Raises:
        SourceError: They have a format that nobody asked for.
    """
    colour_space = configuration.get("colour_space")
    full_range = "full" in str(getattr(colour_space, "range", "full")).lower()
    return {
        stream: Stream(configuration[stream], full_range, name)
        for stream in ("main", "lores")
        if configuration.get(stream) is not None
    }
