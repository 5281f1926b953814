"""Frame sources: cameras, image and video files, network streams and the bundled demo clip.

Importing this package imports no source; `open_source` and `open_camera` import the one they open.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.device import registry
from edgekit.device.sources.settings import CameraSettings, parse_camera
from edgekit.errors import InputError, SourceError

if TYPE_CHECKING:
    from edgekit.device.frame import Source

_DEMO = "demo"


def open_source(uri: str, notify: Callable[[str], None], realtime: bool = False, repeat: bool = False) -> Source:
    """Return a source of frames for a file, a folder, a network address or the demo clip.

        with open_source("clip.mp4", print) as source:
            for frame in source:
                print(frame.sequence, frame.image_bgr.shape)

    Args:
        uri: `demo`, an image, a folder of images, a glob pattern, a video file, or `SCHEME:...` for a scheme of
            `edgekit.device.registry`: network streams, sources of other packages.
            `./demo` is a file or folder of that name.
        notify: Called with one line for each warning, possibly from another thread.
        realtime: Play a recording at its own frame rate and drop late frames, as a camera does; the demo then repeats.
            No effect on live sources.
        repeat: Begin a recording again at its end, until the source is stopped. No effect on live sources.

    Raises:
        InputError: There is nothing readable at `uri`, or `realtime` for a recording without a frame rate.
        SourceError: The stream does not respond.
    """
    source = _open(uri, notify)
    if source.live or not (repeat or realtime):
        return source
    from edgekit.device.sources.played import RealtimeSource, RepeatedSource

    if repeat or uri == _DEMO:
        source = RepeatedSource(source, lambda: _open(uri, lambda _: None))  # its warnings are given once
    return RealtimeSource(source) if realtime else source


def _open(uri: str, notify: Callable[[str], None]) -> Source:
    """Return the source of an address, the demo clip or files, played as it is; raises as `open_source`."""
    if not uri:
        raise InputError("the source is empty: name a file, a folder, a stream or `demo`")
    if uri == _DEMO:
        demo: Source = registry.find("source", _DEMO)(uri, notify)
        return demo
    scheme, colon, rest = uri.partition(":")
    has_scheme = colon and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme)
    # The name of a file may contain a colon, too.
    is_address = has_scheme and (rest.startswith("//") or not _exists(uri))
    if is_address:
        name = _registered_name(scheme)  # None for an unknown scheme
        if name is not None:
            source: Source = registry.find("source", name)(uri, notify)
            return source
        if rest.startswith("//"):
            raise InputError(
                f"source '{uri}': unknown scheme '{scheme}': use one of {', '.join(registry.names('source'))}"
            )
    from edgekit.device.sources.files import open_files

    return open_files(uri, notify)


def _registered_name(scheme: str) -> str | None:
    """Return the name under which the source for a scheme is registered; None if there is no such source."""
    if scheme.lower() in registry.own_names("source"):
        return scheme.lower()
    # Searches other packages, which takes time.
    return scheme if scheme in registry.names("source") else None


def _exists(name: str) -> bool:
    """Return whether there is a file or folder of this name."""
    try:
        return Path(name).exists()
    except OSError:  # longer than a file name may be
        return False


def open_camera(which: str, notify: Callable[[str], None], settings: CameraSettings | None = None) -> Source:
    """Return a source of the newest frames of a camera.

    Args:
        which: `picamera2` (`picamera2:1` is the second), `usb` (the first USB camera), `/dev/videoN` or N, or `auto`:
            picamera2 and then a USB camera on a Raspberry Pi, elsewhere the first V4L2 camera.
        notify: As in `open_source`.
        settings: Requested frame size, rate, controls and orientation.

    Raises:
        InputError: `which` is none of these, or the camera lacks a requested control, mode or format.
        SourceError: The camera does not exist or cannot be opened.
    """
    settings = settings or CameraSettings()
    parse_camera(which)  # raises for another name
    csi = re.fullmatch(r"picamera2(?::([0-9]{1,2}))?", which)
    if csi:
        from edgekit.device.sources.picamera import open_picamera

        return open_picamera(int(csi.group(1) or 0), settings, notify)
    from edgekit.device.sources.opencv import open_v4l2

    if which == "usb":
        return _first_v4l2(settings, notify, usb_only=True)
    if which == "auto":
        return _open_any(settings, notify)
    number = re.fullmatch(r"(?:/dev/video)?([0-9]{1,3})", which)
    return open_v4l2(Path(f"/dev/video{int(number.group(1))}" if number else which), settings, notify)


def _open_any(settings: CameraSettings, notify: Callable[[str], None]) -> Source:
    """Return the camera "auto": see `open_camera`."""
    if not _is_raspberry_pi():
        return _first_v4l2(settings, notify, usb_only=False)
    from edgekit.device.sources.picamera import open_picamera

    try:
        return open_picamera(0, settings, notify)
    except SourceError as no_csi_camera:
        try:
            return _first_v4l2(settings, notify, usb_only=True)
        except SourceError as no_usb_camera:
            raise SourceError(f"no camera: {no_csi_camera}; {no_usb_camera}") from no_usb_camera


def _first_v4l2(settings: CameraSettings, notify: Callable[[str], None], usb_only: bool) -> Source:
    """Return the first V4L2 camera that can be opened.

    Raises:
        SourceError: There is none.
    """
    from edgekit.device.sources.opencv import open_v4l2, v4l2_cameras

    reasons = []
    for node in v4l2_cameras(usb_only):
        try:
            return open_v4l2(node, settings, notify)
        except SourceError as error:
            reasons.append(str(error))
    if reasons:
        raise SourceError("; ".join(reasons))
    kind, hint = ("USB", "") if usb_only else ("V4L2", "; for a Raspberry Pi's CSI camera give --camera picamera2")
    raise SourceError(f"no {kind} camera is connected (no device in /sys/class/video4linux){hint}")


def _is_raspberry_pi() -> bool:
    from edgekit.boards import read_board

    return read_board().is_raspberry_pi
