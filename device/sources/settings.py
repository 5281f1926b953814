"""Requested settings of a camera."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from edgekit.device.region import Region
from edgekit.errors import InputError

ControlValue: TypeAlias = bool | int | float | str | tuple[float, ...]

ROTATIONS = (0, 90, 180, 270)


@dataclass(frozen=True)
class EncodedPacket:
    """One coded image (H.264, Annex B) and its time in microseconds since the encoder started."""

    data: bytes
    is_key: bool
    time_us: int


class EncodedVideo(Protocol):
    """Receives the video that the encoder of a camera produces, such as `sinks.h264_recorder.H264Recorder`."""

    def start(self, size_wh: tuple[int, int]) -> None:
        """Begin a video of images of this size.

        Raises:
            InputError: The video cannot be recorded here.
        """
        ...

    def put(self, packet: EncodedPacket) -> None:
        """Take the next packet without waiting."""
        ...

    def stop(self) -> None:
        """Finish the video; another `start` may follow."""
        ...


@dataclass(frozen=True)
class CameraSettings:
    """Requested settings; the camera chooses each value that is None.

    Attributes:
        size_wh: Width and height of the frames in pixels, before the rotation.
        fps: Frames per second.
        pixel_format: Pixel format of a USB camera, MJPG or YUYV.
        controls: libcamera controls by name; picamera2 only.
        rotation: Clockwise rotation in degrees, one of `ROTATIONS`.
        flip_horizontal: Mirror left and right, before the rotation.
        flip_vertical: Mirror top and bottom, before the rotation.
        sensor_mode: Index in the sensor's list of modes; picamera2 only.
        buffers: Number of frame buffers.
        detector_px: Longer side of the detector's input in pixels; None: as `min_face_px` requires.
        min_face_px: Smallest face to be detected, in pixels of the frame; 0: no minimum.
        region: The part of the rotated frame that the detector sees; None: the whole frame.
        detects: Whether there is a detector, which may need a second stream.
        recording: Receives the camera's encoded video; picamera2 only.
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
    detects: bool = True
    recording: EncodedVideo | None = None


def parse_size(text: str) -> tuple[int, int]:
    """Return (width, height) of the text `WxH`; both are even, because chroma planes have half the size.

    Raises:
        InputError: `text` is not such a size.
    """
    match = re.fullmatch(r"(\d{2,5})x(\d{2,5})", text)
    size_wh = (int(match.group(1)), int(match.group(2))) if match else (0, 0)
    if min(size_wh) < 16 or size_wh[0] % 2 or size_wh[1] % 2:
        raise InputError(f"camera size '{text}' is not of the form WxH with even numbers: write for example 640x480")
    return size_wh


def parse_controls(texts: Sequence[str]) -> dict[str, ControlValue]:
    """Return the controls of `Name=value` texts; values are numbers, true, false, lists such as `1.5,2`, or words.

    Raises:
        InputError: A text is not of this form, or a name occurs twice.
    """
    controls: dict[str, ControlValue] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not re.fullmatch(r"[A-Za-z][A-Za-z0-9]*", name) or not value:
            raise InputError(f"control '{text}' is not of the form Name=value: write for example ExposureTime=10000")
        if name in controls:
            raise InputError(f"control '{name}' is given twice: remove one")
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
