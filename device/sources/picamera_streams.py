"""The two streams of picamera2: size of the detector's stream (`lores`), and memory layout of the buffers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgekit.device.region import detector_input_px
from edgekit.device.sources.settings import CameraSettings
from edgekit.device.sources.yuv import Layout, Planes, split_planes
from edgekit.errors import SourceError

# Supported by the camera hardware of every Raspberry Pi; other cameras may deliver NV12 instead.
FORMAT = "YUV420"
_LAYOUTS: dict[str, Layout] = {"YUV420": "i420", "NV12": "nv12"}
# Minimum of the longer side of the detector's stream, because the tracker uses this stream too.
_MIN_LORES_PX = 320


class Stream:
    """Memory layout of the buffers of one stream."""

    def __init__(self, stream: dict[str, Any], full_range: bool, name: str) -> None:
        if stream["format"] not in _LAYOUTS:
            raise SourceError(f"{name} delivers format {stream['format']} instead of {FORMAT}: try camera 'usb'")
        self._layout = _LAYOUTS[stream["format"]]
        self._size_wh = (int(stream["size"][0]), int(stream["size"][1]))
        self._stride = int(stream["stride"])
        self._full_range = full_range

    def planes(self, buffer: Any) -> Planes:
        """Return the luma and chroma planes of a buffer as views.

        Raises:
            SourceError: The buffer is too small.
        """
        data = np.asarray(buffer, np.uint8).reshape(-1)
        return split_planes(data, self._size_wh, self._stride, self._layout, self._full_range)


def lores_size(size_wh: tuple[int, int], full_view_px: int) -> tuple[int, int] | None:
    """Return the (width, height) of the detector's stream, or None if the detector can use the main stream.

    The longer side is at least `full_view_px`, so that the detector's input is never enlarged. The size is that of the
    main stream, `size_wh`, divided by an integer and rounded down to even numbers, so that both streams show the same
    view.
    """
    divisor = math.floor(max(size_wh) / max(full_view_px, _MIN_LORES_PX))
    if divisor < 2:
        return None
    return size_wh[0] // divisor // 2 * 2, size_wh[1] // divisor // 2 * 2


def full_view_px(size_wh: tuple[int, int], settings: CameraSettings) -> int:
    """Return the longer side of the whole frame, in pixels, at which the region of interest fills the detector's input.

    Raises:
        InputError: The region lies outside the frame.
    """
    region_wh = size_wh
    if settings.region is not None:
        rotated_wh = size_wh if settings.rotation in (0, 180) else size_wh[::-1]
        left, top, right, bottom = settings.region.xyxy(rotated_wh)
        region_wh = right - left, bottom - top
    detector_px = settings.detector_px or detector_input_px(region_wh, settings.min_face_px)
    return math.ceil(detector_px * max(size_wh) / max(region_wh))


def configured_streams(configuration: Any, name: str) -> dict[str, Stream]:
    """Return the streams of a picamera2 configuration: "main", and "lores" if present; `name` is for messages.

    Raises:
        SourceError: A stream has an unsupported format.
    """
    colour_space = configuration.get("colour_space")
    full_range = "full" in str(getattr(colour_space, "range", "full")).lower()
    return {
        stream: Stream(configuration[stream], full_range, name)
        for stream in ("main", "lores")
        if configuration.get(stream) is not None
    }
