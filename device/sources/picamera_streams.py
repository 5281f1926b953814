"""The two streams of picamera2: size of the detector's stream (`lores`), and memory layout of the buffers."""

from __future__ import annotations

import math
from collections.abc import Callable
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


def plane_readers(configuration: Any, name: str) -> dict[str, Callable[[Any], Planes]]:
    """Return the readers of the streams of a picamera2 configuration: "main", and "lores" if present.

    A reader returns the luma and chroma planes of a buffer of its stream as views; a buffer that is too small raises
    SourceError. `name` is for messages.

    Raises:
        SourceError: A stream has an unsupported format.
    """
    colour_space = configuration.get("colour_space")
    full_range = "full" in str(getattr(colour_space, "range", "full")).lower()
    present = {stream: configuration[stream] for stream in ("main", "lores") if configuration.get(stream) is not None}
    return {stream: _plane_reader(layout, full_range, name) for stream, layout in present.items()}


def _plane_reader(stream: dict[str, Any], full_range: bool, name: str) -> Callable[[Any], Planes]:
    if stream["format"] not in _LAYOUTS:
        raise SourceError(f"{name} delivers format {stream['format']} instead of {FORMAT}: try camera 'usb'")
    layout, stride = _LAYOUTS[stream["format"]], int(stream["stride"])
    size_wh = (int(stream["size"][0]), int(stream["size"][1]))
    return lambda buffer: split_planes(np.asarray(buffer, np.uint8).reshape(-1), size_wh, stride, layout, full_range)
