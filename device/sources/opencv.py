"""V4L2 cameras and network streams through OpenCV."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np

from edgekit.device.sources.files import VideoSource, capture_fps, capture_frame_count
from edgekit.device.sources.live import LiveSource
from edgekit.errors import InputError, SourceError
from edgekit.preprocess import ImageU8

STREAM_SCHEMES = ("http", "https", "rtsp", "rtsps", "rtmp", "srt", "tcp", "udp")

_OPEN_TIMEOUT_MS = 10_000
_READ_TIMEOUT_MS = 5_000


class CaptureDevice:
    """An opened `cv2.VideoCapture`."""

    def __init__(self, capture: cv2.VideoCapture) -> None:
        self._capture = capture
        self.fps = capture_fps(capture)

    def read(self) -> ImageU8 | None:
        """Return the next picture, uint8 (H, W, 3) B, G, R, or None when the device is lost."""
        try:
            ok, image = self._capture.read()
        except cv2.error:
            return None
        return np.asarray(image, np.uint8) if ok and image is not None and image.ndim == 3 else None

    def close(self) -> None:
        """Give the device back."""
        self._capture.release()


def open_stream(url: str, notify: Callable[[str], None]) -> LiveSource | VideoSource:
    """Return the source of a network address: the newest frame of a live stream, every frame of a recording.

    Raises:
        InputError: The address is malformed.
        SourceError: Nothing answers there, or what answers is no video.
    """
    try:
        name = f"stream '{without_password(url)}'"
    except ValueError as error:
        raise InputError(f"source '{url}' is no network address: {error}") from error
    capture = _open_url(url, name)
    if capture_frame_count(capture) is not None:
        return VideoSource(capture, without_password(url), notify)
    opened: list[cv2.VideoCapture] = [capture]
    return LiveSource(name, lambda: CaptureDevice(opened.pop() if opened else _open_url(url, name)), notify)


def open_v4l2(path: Path, notify: Callable[[str], None]) -> LiveSource:
    """Return the newest frames of a V4L2 camera.

    Raises:
        SourceError: It is not there, may not be used, or gives no picture.
    """
    name = f"camera '{path}'"
    return LiveSource(name, lambda: _open_node(path, name), notify)


def v4l2_cameras(usb_only: bool, root: Path = Path("/")) -> list[Path]:
    """Return the V4L2 nodes that can be cameras, USB ones first: a camera's further nodes (metadata) are left out.

    On a Raspberry Pi the codecs and the camera's raw receiver are V4L2 nodes too; none of them is on the USB bus.
    """
    found = []
    for node in (root / "sys/class/video4linux").glob("video*"):
        index = (node / "index").read_text().strip() if (node / "index").exists() else "0"
        on_usb = (node / "device/subsystem").resolve().name == "usb"
        if index == "0" and (on_usb or not usb_only):
            found.append((not on_usb, int(re.sub(r"\D", "", node.name) or 0), Path("/dev") / node.name))
    return [path for _, _, path in sorted(found)]


def without_password(url: str) -> str:
    """Return `url` fit for messages and reports."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{parts.username}:***@{host}").geturl()


def _open_url(url: str, name: str) -> cv2.VideoCapture:
    settings = [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _OPEN_TIMEOUT_MS,
        cv2.CAP_PROP_READ_TIMEOUT_MSEC, _READ_TIMEOUT_MS,
    ]  # fmt: skip
    capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, settings)
    if not capture.isOpened():
        raise SourceError(f"{name} cannot be opened: check the address and that the sender is running")
    return capture


def _open_node(path: Path, name: str) -> CaptureDevice:
    if not path.exists():
        here = ", ".join(str(node) for node in v4l2_cameras(usb_only=False)) or "none"
        raise SourceError(f"{name} does not exist: plug it in, or choose one of those here: {here}")
    if not os.access(path, os.R_OK | os.W_OK):
        raise SourceError(f"{name} may not be used: add your user to the group 'video' and log in again")
    capture = cv2.VideoCapture(str(path), cv2.CAP_V4L2)
    if not capture.isOpened():
        raise SourceError(f"{name} cannot be opened: it is busy or no camera; stop what uses it (fuser {path})")
    return CaptureDevice(capture)
