"""What a camera is asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from edgekit.device.region import Region
from edgekit.device.sinks.h264_recorder import Recording
from edgekit.errors import InputError

ControlValue: TypeAlias = bool | int | float | str | tuple[float, ...]

ROTATIONS = (0, 90, 180, 270)


@dataclass(frozen=True)
class CameraSettings:
    """None leaves a value to the camera.

    Attributes:
        size_wh: Width and height of the frames, as the sensor sees them.
        fps: Frames a second.
        pixel_format: MJPG or YUYV: what a USB camera sends.
        controls: libcamera's controls by name, for picamera2.
        rotation: Degrees clockwise, one of `ROTATIONS`.
        flip_horizontal: Mirror left and right, before the rotation.
        flip_vertical: Mirror top and bottom, before the rotation.
        sensor_mode: Number in the sensor's list of modes, for picamera2.
        buffers: How many frames the camera may fill ahead.
        detector_px: Longer side of the picture that the detector sees; None: what `min_face_px` needs.
        min_face_px: The smallest face, in pixels of the frame, that is to be found; 0: none in particular.
        region: The part of the frame, as it is turned, that the detector sees; None: all of it.
        recording: Where picamera2 records what the camera sees.
    """

    size_wh: tuple[int, int] | None = None
    fps: float | None = None
    pixel_format: str | None = None
    controls: Mapping[str, ControlValue] = field(default_factory=dict)
    rotation: int = 0
    flip_horizontal: bool = False
    flip_vertical: bool = False
    sensor_mode: int | None = None
    buffers: int | None = None
    detector_px: int | None = None
    min_face_px: int = 0
    region: Region | None = None
    recording: Recording | None = None


def parse_size(text: str) -> tuple[int, int]:
    """Return width and height of `WxH`; both even, because chroma has half of them.

    Raises:
        InputError: It is no such size.
    """
    match = re.fullmatch(r"(\d{2,5})x(\d{2,5})", text)
    size_wh = (int(match.group(1)), int(match.group(2))) if match else (0, 0)
    if min(size_wh) < 16 or size_wh[0] % 2 or size_wh[1] % 2:
        raise InputError(f"camera size '{text}' is not of the form WxH: write 640x480, say, with even numbers")
    return size_wh


def parse_controls(texts: Sequence[str]) -> dict[str, ControlValue]:
    """Return the controls that `Name=value` texts name; values are numbers, true, false, lists `1.5,2`, or words.

    Raises:
        InputError: A text is not of that form, or names one twice.
    """
    controls: dict[str, ControlValue] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not re.fullmatch(r"[A-Za-z][A-Za-z0-9]*", name) or not value:
            raise InputError(f"control '{text}' is not of the form Name=value: write ExposureTime=10000, say")
        if name in controls:
            raise InputError(f"control '{name}' is given twice: give it once")
        controls[name] = _value(value)
    return controls


def _value(text: str) -> ControlValue:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for number in (int, float):
        try:
            parts = tuple(number(part) for part in text.split(","))
        except ValueError:
            continue
        return parts if len(parts) > 1 else parts[0]
    return text
