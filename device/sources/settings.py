"""Requested settings of a camera."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from edgekit.device.region import Region
from edgekit.errors import InputError
from edgekit.options import Options, option

ControlValue: TypeAlias = bool | int | float | str | tuple[float, ...]

# The control that chooses the pixel format of a USB camera.
_FORMAT = "format"
_USB_FORMATS = ("MJPG", "YUYV")
CAMERAS = "auto, picamera2, picamera2:N, usb, /dev/videoN or N"


def parse_camera(text: str) -> str:
    """Return the name of a camera.

    Raises:
        InputError: It is not one of `CAMERAS`.
    """
    if not re.fullmatch(r"auto|usb|picamera2(:[0-9]{1,2})?|[0-9]{1,3}|/dev/.+", text):
        raise InputError(f"camera '{text}' is not one of: {CAMERAS}")
    return text


@dataclass(frozen=True)
class EncodedPacket:
    """One coded image (H.264, Annex B) and its time in microseconds since the encoder started."""

    data: bytes
    is_key: bool
    time_us: int


class EncodedVideo(Protocol):
    """Receives the video that the encoder of a camera produces, such as `sinks.record.H264Recorder`."""

    @property
    def required(self) -> bool:
        """Whether a source without an encoder is refused."""

    def start(self, size_wh: tuple[int, int]) -> None:
        """Begin a video of images of this size.

        Raises:
            InputError: The video cannot be recorded here.
        """

    def put(self, packet: EncodedPacket) -> None:
        """Take the next packet without waiting."""

    def stop(self) -> None:
        """Finish the video; another `start` may follow."""


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


def parse_control(text: str) -> tuple[str, ControlValue]:
    """Return name and value of the text `Name=value`: a number, true, false, a list such as `1.5,2`, or a word.

    Raises:
        InputError: The text is not of this form.
    """
    name, separator, value = text.partition("=")
    if not separator or not re.fullmatch(r"[A-Za-z][A-Za-z0-9]*", name) or not value:
        raise InputError(f"control '{text}' is not of the form Name=value: write for example ExposureTime=10000")
    return name, _parsed_value(value)


@dataclass(frozen=True, kw_only=True)
class CameraSettings(Options):
    """Requested settings; the camera chooses each value that is None.

    Attributes:
        size_wh: Width and height of the frames in pixels, before the rotation.
        fps: Frames per second.
        controls: libcamera controls by name, for picamera2. For a USB camera: `format`, "MJPG" or "YUYV".
        rotation: Clockwise rotation in degrees.
        flip: Mirror left and right ("horizontal"), or top and bottom ("vertical"), before the rotation.
        sensor_mode: Index in the sensor's list of modes; picamera2 only.
        detector_px: Longer side of the detector's input in pixels; None: as `min_face_px` requires.
        min_face_px: Smallest face to be detected, in pixels of the frame; 0: no minimum.
        region: The part of the rotated frame that the detector sees; None: the whole frame.
        detects: Whether there is a detector, which may need a second stream.
        recording: Receives the camera's encoded video; picamera2 only.
    """

    title = "Camera"
    size_wh: tuple[int, int] | None = option(
        "--camera-size",
        "Size of the camera's frames. Default: 640x480, or the camera's own size.",
        metavar="WxH",
        parse=parse_size,
        needs="--camera",
        main=True,
    )
    fps: float | None = option(
        "--camera-fps",
        "Frame rate of the camera. Default: 30 with picamera2; with other cameras the camera's own rate.",
        metavar="FPS",
        least=0.01,
        most=1000,
        needs="--camera",
    )
    controls: Mapping[str, ControlValue] = option(
        "--control",
        "A control of picamera2, such as ExposureTime=10000. For a USB camera: format=MJPG needs less USB bandwidth, "
        "format=YUYV needs no decoding. Repeatable.",
        default=(),
        metavar="NAME=VALUE",
        parse=parse_control,
        several=True,
        needs="--camera",
    )
    rotation: Literal[0, 90, 180, 270] = option(
        "--rotate", "Rotate the camera's frames clockwise.", default=0, needs="--camera", main=True
    )
    flip: tuple[Literal["horizontal", "vertical"], ...] = option(
        "--flip",
        "Mirror the camera's frames before the rotation. Repeatable.",
        default=(),
        needs="--camera",
    )
    sensor_mode: int | None = option(
        "--sensor-mode",
        "Sensor mode of picamera2; `edgekit cameras` lists them.",
        least=0,
        most=1000,
        needs="--camera",
    )
    detector_px: int | None = None
    min_face_px: int = 0
    region: Region | None = None
    detects: bool = True
    recording: EncodedVideo | None = None

    def __post_init__(self) -> None:
        """Check the controls, and keep them as a mapping."""
        super().__post_init__()
        # A mapping from Python, or pairs of name and value from the command line.
        pairs = list(self.controls.items() if isinstance(self.controls, Mapping) else self.controls)
        controls = dict(pairs)
        if len(controls) < len(pairs):
            raise InputError("a control is given twice: remove one")
        pixel_format = controls.get(_FORMAT)
        if pixel_format is not None and pixel_format not in _USB_FORMATS:
            raise InputError(f"control '{_FORMAT}={pixel_format}': choose from {', '.join(_USB_FORMATS)}")
        object.__setattr__(self, "controls", controls)  # the class is frozen

    @property
    def flip_horizontal(self) -> bool:
        """Whether left and right are mirrored."""
        return "horizontal" in self.flip

    @property
    def flip_vertical(self) -> bool:
        """Whether top and bottom are mirrored."""
        return "vertical" in self.flip

    @property
    def pixel_format(self) -> str | None:
        """Pixel format of a USB camera; None: the camera chooses."""
        chosen = self.controls.get(_FORMAT)
        return None if chosen is None else str(chosen)

    @property
    def camera_controls(self) -> dict[str, ControlValue]:
        """The controls without the pixel format, for libcamera."""
        return {name: value for name, value in self.controls.items() if name != _FORMAT}


def _parsed_value(text: str) -> ControlValue:
    """Return a text as bool, int, float or a tuple of numbers, the first of these that fits; else the text itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for number in (int, float):
        try:
            parts = tuple(number(part) for part in text.split(","))
        except ValueError:
            continue
        return parts if len(parts) > 1 else parts[0]
    return text
