"""V4L2 cameras and network streams through OpenCV."""

from __future__ import annotations

import base64
import os
import re
import socket
import time
from collections.abc import Callable
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import cv2
import numpy as np

from edgekit.device.sources.files import VideoSource, capture_fps, capture_frame_count
from edgekit.device.sources.live import CapturedImage, LiveSource, Picture
from edgekit.device.sources.settings import CameraSettings
from edgekit.device.sources.yuv import ROTATION_CODES
from edgekit.errors import InputError, SourceError
from edgekit.preprocess import ImageU8
from edgekit.text import printable

OPEN_TIMEOUT_MS = 10_000
_READ_TIMEOUT_MS = 5_000
# Where a sender of an address without a port listens.
_PORTS = {"http": 80, "https": 443, "rtsp": 554, "rtsps": 322, "rtmp": 1935}
_ASK_S = 3.0
# Ages beyond this are no ages: another clock's time.
_MAX_AGE_S = 10.0


class CaptureDevice:
    """An opened `cv2.VideoCapture`."""

    def __init__(self, capture: cv2.VideoCapture, settings: CameraSettings | None = None) -> None:
        """Take over a capture; of `settings` the flips and the rotation are done here."""
        self._capture = capture
        self._settings = settings or CameraSettings()
        # Only V4L2 says when a picture was taken; elsewhere the position counts from the stream's start.
        self._has_times = capture.isOpened() and capture.getBackendName() == "V4L2"
        self.fps = capture_fps(capture)

    def read(self) -> Picture | None:
        """Return the next picture, or None when the device is lost."""
        try:
            ok, image = self._capture.read()
        except cv2.error:
            return None
        if not ok or image is None or image.ndim != 3:
            return None
        picture = turned(np.asarray(image, np.uint8), self._settings)
        return CapturedImage(picture, self._taken_s()) if self._has_times else picture

    def close(self) -> None:
        """Give the device back."""
        self._capture.release()

    def _taken_s(self) -> float | None:
        """Return the driver's time of the picture; None where that is not the clock of `time.monotonic`."""
        taken_s = float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1e3
        return taken_s if 0 <= time.monotonic() - taken_s <= _MAX_AGE_S else None


def turned(image_bgr: ImageU8, settings: CameraSettings) -> ImageU8:
    """Return a picture flipped and rotated as the settings say; the same one if they say nothing."""
    if settings.flip_horizontal or settings.flip_vertical:
        code = -1 if settings.flip_horizontal and settings.flip_vertical else int(settings.flip_horizontal)
        image_bgr = np.asarray(cv2.flip(image_bgr, code), np.uint8)
    if settings.rotation:
        image_bgr = np.asarray(cv2.rotate(image_bgr, ROTATION_CODES[settings.rotation]), np.uint8)
    return image_bgr


def open_stream(url: str, notify: Callable[[str], None]) -> LiveSource | VideoSource:
    """Return the source of a network address: the newest frame of a live stream, every frame of a recording.

    Raises:
        InputError: The address is malformed.
        SourceError: Nothing answers there, or what answers is no video.
    """
    try:
        _ = urlsplit(url).port
    except ValueError as error:
        raise InputError(f"source '{url}' is no network address: {error}") from error
    name = f"stream '{without_password(url)}'"
    capture = _open_url(url, name, ask=True)
    if capture_frame_count(capture) is not None:
        return VideoSource(capture, without_password(url), notify)
    opened: list[cv2.VideoCapture] = [capture]
    return LiveSource(name, lambda: CaptureDevice(opened.pop() if opened else _open_url(url, name)), notify)


def open_gstreamer(uri: str, notify: Callable[[str], None]) -> LiveSource:
    """Return the newest frames of a GStreamer pipeline: `gst:` and its elements, with an `appsink` or without.

    Raises:
        InputError: This OpenCV has no GStreamer, or the pipeline is empty.
        SourceError: The pipeline does not run.
    """
    pipeline = uri.partition(":")[2].strip()
    if not pipeline:
        raise InputError(f"source '{uri}' names no pipeline: write gst: and its elements")
    # getBackends lists it also where only a plugin could bring it, which pip's have not.
    if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        raise InputError(
            f"source 'gst:{without_password(pipeline)}': this OpenCV "
            f"({cv2.__version__}, {Path(cv2.__file__).parent}) has no GStreamer, "
            "as all of pip's are: use the system's, sudo apt install python3-opencv, in an environment made with "
            "--system-site-packages and without opencv-python-headless"
        )
    if not re.search(r"\bappsink\b", pipeline):
        # Newest frame only: the sink keeps one and lets older ones go.
        pipeline += " ! videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1 sync=false"
    name = f"pipeline '{without_password(pipeline)}'"
    cure = "try it with gst-launch-1.0"

    def connect() -> CaptureDevice:
        capture = cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER)
        if not capture.isOpened():
            raise SourceError(f"{name} does not run: {cure}")
        return CaptureDevice(capture)

    # OpenCV opens whatever is left of a pipeline with an element that is not there.
    return LiveSource(name, connect, notify, cure)


def open_v4l2(path: Path, settings: CameraSettings, notify: Callable[[str], None]) -> LiveSource:
    """Return the newest frames of a V4L2 camera.

    Raises:
        InputError: It is asked for what only picamera2 knows.
        SourceError: It is not there, may not be used, or gives no picture.
    """
    name = f"camera '{path}'"
    if settings.controls:
        raise InputError(
            f"{name} takes no --control, only picamera2 does: set it with v4l2-ctl -d {path} -c NAME=VALUE"
        )
    if settings.sensor_mode is not None:
        raise InputError(f"{name} has no --sensor-mode, only picamera2 has: choose by --camera-size")
    if settings.recording is not None:
        raise InputError(f"{name} takes no --record, only picamera2 does: use --save")
    asked_wh = settings.size_wh

    def connect() -> CaptureDevice:
        capture = _open_node(path, name, settings)
        given_wh = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        if asked_wh is not None and given_wh != asked_wh:
            notify(f"{name} gives {given_wh[0]}x{given_wh[1]} instead of {asked_wh[0]}x{asked_wh[1]} (edgekit cameras)")
        given = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").decode("ascii", "replace")
        if settings.pixel_format is not None and given != settings.pixel_format:
            notify(f"{name} gives {printable(given)} instead of {settings.pixel_format} (edgekit cameras)")
        return CaptureDevice(capture, settings)

    return LiveSource(name, connect, notify)


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


def without_password(text: str) -> str:
    """Return an address, or a pipeline with addresses in it, fit for messages and reports."""
    text = re.sub(r"(://[^\s/?#:@]*):[^\s/?#]*@", r"\1:***@", text)
    # How GStreamer's sources take one.
    return re.sub(r"\buser-pw=\S+", "user-pw=***", text)


def _open_url(url: str, name: str, ask: bool = False) -> cv2.VideoCapture:
    settings = [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_TIMEOUT_MS,
        cv2.CAP_PROP_READ_TIMEOUT_MSEC, _READ_TIMEOUT_MS,
    ]  # fmt: skip
    capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, settings)
    if not capture.isOpened():
        raise SourceError(f"{name} cannot be opened{_why(url) if ask else ''}: check the address, and the sender")
    return capture


def _why(url: str) -> str:
    """Return what the sender says, or that it does not: OpenCV tells nothing. Empty where that is unknown."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    port = parts.port or _PORTS.get(scheme)
    if parts.hostname is None or port is None:
        return ""
    try:
        if scheme != "http":
            socket.create_connection((parts.hostname, port), _ASK_S).close()
            return ""
        with closing(HTTPConnection(parts.hostname, port, timeout=_ASK_S)) as connection:
            user = unquote(f"{parts.username or ''}:{parts.password or ''}")
            secret = f"Basic {base64.b64encode(user.encode()).decode()}"
            where = quote(parts.path or "/", safe="/%") + (f"?{quote(parts.query, safe='=&%+')}" if parts.query else "")
            connection.request("GET", where, headers={"Authorization": secret} if parts.username else {})
            answer = connection.getresponse()
            return f" (it answers {answer.status} {answer.reason})" if answer.status >= 400 else ""
    except OSError as error:
        return f" ({error.strerror or error})"
    except HTTPException:
        return " (it does not answer as a web server does)"
    except ValueError:
        return " (that is no name of a host)"


def _open_node(path: Path, name: str, settings: CameraSettings) -> cv2.VideoCapture:
    if not path.exists():
        here = ", ".join(str(node) for node in v4l2_cameras(usb_only=False)) or "none"
        raise SourceError(f"{name} does not exist: plug it in, or choose one of those here: {here}")
    if not os.access(path, os.R_OK | os.W_OK):
        raise SourceError(f"{name} may not be used: add your user to the group 'video' and log in again")
    # The format first: it decides which sizes there are, and the size which rates.
    wanted: list[int] = []
    if settings.pixel_format is not None:
        wanted += [cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*settings.pixel_format)]
    if settings.size_wh is not None:
        wanted += [cv2.CAP_PROP_FRAME_WIDTH, settings.size_wh[0], cv2.CAP_PROP_FRAME_HEIGHT, settings.size_wh[1]]
    if settings.fps is not None:
        wanted += [cv2.CAP_PROP_FPS, round(settings.fps)]
    if settings.buffers is not None:
        wanted += [cv2.CAP_PROP_BUFFERSIZE, settings.buffers]
    capture = cv2.VideoCapture(str(path), cv2.CAP_V4L2)
    if not capture.isOpened():
        holders = node_holders(path)
        reason = f"held by {', '.join(holders)}: stop it" if holders else f"it is busy or no camera (fuser {path})"
        raise SourceError(f"{name} cannot be opened: {reason}, or choose another (edgekit cameras)")
    for key, value in zip(wanted[::2], wanted[1::2], strict=True):
        capture.set(key, value)
    return capture


def node_holders(path: Path, proc: Path = Path("/proc")) -> list[str]:
    """Return who holds a device open, as `pid 812 (motion)`; other users' processes only root can see."""
    holders = []
    for process in sorted(proc.glob("[0-9]*"), key=lambda entry: int(entry.name)):
        if str(path) in _opened(process):
            try:
                command = (process / "comm").read_text(errors="replace").strip()
            except OSError:
                command = "?"
            holders.append(f"pid {process.name} ({command})")
    return holders


def _opened(process: Path) -> set[str]:
    opened = set()
    with suppress(OSError):  # gone, or another user's
        for link in (process / "fd").iterdir():
            with suppress(OSError):  # closed in between
                opened.add(str(link.readlink()))
    return opened
