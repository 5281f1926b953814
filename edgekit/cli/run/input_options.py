"""Options of `edgekit run` for its source and camera."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from edgekit.cli.options import NumberRange, grouped_options
from edgekit.cli.sections import section

if TYPE_CHECKING:
    from edgekit.device.sources import CameraSettings
    from edgekit.device.sources.settings import EncodedVideo

_MAX_FPS = 1000.0
_MAX_BUFFERS = 32


@dataclass(frozen=True)
class InputOptions:
    """Values of the options for source and camera; each field has the name of its option's parameter."""

    realtime: bool
    camera_size: str | None
    camera_fps: float | None
    camera_format: str | None
    camera_buffers: int | None
    control: tuple[str, ...]
    sensor_mode: int | None
    rotate: str
    flip: tuple[str, ...]


_OPTIONS = (
    section(
        "Source",
        click.option(
            "--realtime/--as-fast-as-possible",
            default=False,
            show_default=True,
            help="Play a video file at its own frame rate.",
        ),
    ),
    section(
        "Camera",
        click.option(
            "--camera-size",
            metavar="WxH",
            help="Size of the camera's frames. Default: 640x480, or the camera's own size.",
        ),
        click.option(
            "--camera-fps",
            type=NumberRange(0, _MAX_FPS, min_open=True),
            metavar="FPS",
            help="Frame rate of the camera. Default: 30 with picamera2; with other cameras the camera's own rate.",
        ),
        click.option(
            "--camera-format",
            type=click.Choice(["MJPG", "YUYV"], case_sensitive=False),
            help="Pixel format of a USB camera: MJPG needs less USB bandwidth, YUYV needs no decoding.",
        ),
        click.option(
            "--camera-buffers",
            type=click.IntRange(1, _MAX_BUFFERS),
            metavar="N",
            help="Number of frame buffers; default: 3 with picamera2.",
        ),
        click.option(
            "--control",
            multiple=True,
            metavar="NAME=VALUE",
            help="A control of picamera2, such as ExposureTime=10000. Repeatable.",
        ),
        click.option(
            "--sensor-mode",
            type=click.IntRange(0, 1000),
            metavar="N",
            help="Sensor mode of picamera2; `edgekit cameras` lists them.",
        ),
        click.option(
            "--rotate",
            type=click.Choice(["0", "90", "180", "270"]),
            default="0",
            show_default=True,
            help="Rotate the camera's frames clockwise.",
        ),
        click.option(
            "--flip",
            type=click.Choice(["horizontal", "vertical"]),
            multiple=True,
            help="Mirror the camera's frames before the rotation. Repeatable.",
        ),
    ),
)
# Parameters that apply to cameras only.
OF_CAMERAS = tuple(field for field in InputOptions.__dataclass_fields__ if field != "realtime")
# A run has one of these parameters, each with the parameters that apply to it only.
ALTERNATIVES = {"source_uri": ("realtime",), "camera": (*OF_CAMERAS, "record")}


# Adds these options to a command, which gets their values as the parameter `input_options`.
add_input_options = grouped_options("input_options", InputOptions, _OPTIONS)


def check_input_options(options: InputOptions, source_uri: str | None, camera: str | None) -> None:
    """Check the options before anything slow is imported.

    Raises:
        click.UsageError: Not exactly one of source and camera is given, or an option does not apply to the given one.
    """
    if (source_uri is None) == (camera is None):
        fault = "both --source and --camera are given" if source_uri is not None else "no source is given"
        raise click.UsageError(f"{fault}: write --source FILE, --source demo, or --camera")
    if camera is not None:
        if options.realtime:
            raise click.UsageError("--realtime is for recordings; a camera has its own frame rate: leave it out")
        return
    unused = {"rotate": "0", "flip": (), "control": ()}
    for name in OF_CAMERAS:
        if getattr(options, name) != unused.get(name):
            raise click.UsageError(f"--{name.replace('_', '-')} is for cameras: leave it out, or use --camera")


def camera_settings(options: InputOptions, recording: EncodedVideo | None) -> CameraSettings:
    """Return the settings of the camera, with the H.264 recording if there is one.

    Raises:
        InputError: A size or a control is not of the required form.
    """
    from edgekit.device.sources import CameraSettings
    from edgekit.device.sources.settings import parse_controls, parse_size

    return CameraSettings(
        size_wh=parse_size(options.camera_size) if options.camera_size is not None else None,
        fps=options.camera_fps,
        pixel_format=options.camera_format.upper() if options.camera_format else None,
        controls=parse_controls(options.control),
        rotation=int(options.rotate),
        flip_horizontal="horizontal" in options.flip,
        flip_vertical="vertical" in options.flip,
        sensor_mode=options.sensor_mode,
        buffers=options.camera_buffers,
        recording=recording,
    )
