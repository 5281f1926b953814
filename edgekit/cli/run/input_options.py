"""What `edgekit run` asks of its camera or recording: the options, and the source made from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from edgekit.cli.options import NumberRange, grouped_options

if TYPE_CHECKING:
    from edgekit.device.region import Region
    from edgekit.device.sources import Source
    from edgekit.device.sources.settings import EncodedVideo

_MAX_FPS = 1000.0
_MAX_BUFFERS = 32


@dataclass(frozen=True)
class Capturing:
    """The values of all these options, under their parameters' names."""

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
    click.option(
        "--realtime/--as-fast-as-possible", default=False, help="Play a video file at its own pace, as a camera would."
    ),
    click.option("--camera-size", metavar="WxH", help="Size of the camera's frames; default: 640x480, or its own."),
    click.option(
        "--camera-fps",
        type=NumberRange(0, _MAX_FPS, min_open=True),
        metavar="FPS",
        help="Frames a second; default: 30 with picamera2, or its own.",
    ),
    click.option(
        "--camera-format",
        type=click.Choice(["MJPG", "YUYV"], case_sensitive=False),
        help="What a USB camera sends: MJPG fits more through the cable, YUYV costs no decoding.",
    ),
    click.option(
        "--camera-buffers",
        type=click.IntRange(1, _MAX_BUFFERS),
        metavar="N",
        help="Frames the camera may fill ahead; default: 3 with picamera2.",
    ),
    click.option(
        "--control", multiple=True, metavar="NAME=VALUE", help="A control of picamera2, ExposureTime=10000, say."
    ),
    click.option(
        "--sensor-mode", type=click.IntRange(0, 1000), metavar="N", help="A mode of picamera2's (edgekit cameras)."
    ),
    click.option(
        "--rotate",
        type=click.Choice(["0", "90", "180", "270"]),
        default="0",
        show_default=True,
        help="Turn the camera's frames clockwise.",
    ),
    click.option(
        "--flip",
        type=click.Choice(["horizontal", "vertical"]),
        multiple=True,
        help="Mirror the camera's frames before they are turned; may be given for both.",
    ),
)
OF_CAMERAS = tuple(field for field in Capturing.__dataclass_fields__ if field != "realtime")


# Add all these options to a command, which gets their values as one `capturing`.
capturing_options = grouped_options("capturing", Capturing, _OPTIONS)


def check_capturing(capturing: Capturing, camera: str | None) -> None:
    """Look at the options before anything heavy is loaded.

    Raises:
        click.UsageError: One has no use with this source.
    """
    if camera is not None:
        if capturing.realtime:
            raise click.UsageError("--realtime is for recordings; a camera has its own pace")
        return
    unused = {"rotate": "0", "flip": (), "control": ()}
    for name in OF_CAMERAS:
        if getattr(capturing, name) != unused.get(name):
            raise click.UsageError(f"--{name.replace('_', '-')} is for cameras: leave it out, or use --camera")


def open_input(
    capturing: Capturing,
    source_uri: str | None,
    camera: str | None,
    notify: Callable[[str], None],
    *,
    detector_px: int | None = None,
    min_face_px: int = 0,
    region: Region | None = None,
    recording: EncodedVideo | None = None,
) -> Source:
    """Return the source that is meant; a camera learns what the detector needs (see `CameraSettings`).

    Raises:
        InputError: It is none, or takes no such value.
        SourceError: It is not there, or cannot be used.
    """
    from edgekit.device.sources import CameraSettings, open_camera, open_source
    from edgekit.device.sources.settings import parse_controls, parse_size

    if camera is None:
        return open_source(source_uri or "", notify, realtime=capturing.realtime)
    settings = CameraSettings(
        size_wh=parse_size(capturing.camera_size) if capturing.camera_size is not None else None,
        fps=capturing.camera_fps,
        pixel_format=capturing.camera_format.upper() if capturing.camera_format else None,
        controls=parse_controls(capturing.control),
        rotation=int(capturing.rotate),
        flip_horizontal="horizontal" in capturing.flip,
        flip_vertical="vertical" in capturing.flip,
        sensor_mode=capturing.sensor_mode,
        buffers=capturing.camera_buffers,
        detector_px=detector_px,
        min_face_px=min_face_px,
        region=region,
        recording=recording,
    )
    return open_camera(camera, notify, settings)
