"""V4L2 cameras and network streams through OpenCV, and the discovery of cameras."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np

from edgekit.boards import Board, read_board
from edgekit.device.frame import ROTATION_CODES
from edgekit.device.sources.files import VideoSource, capture_fps, capture_frame_count
from edgekit.device.sources.live import CapturedImage, LiveSource, Picture
from edgekit.device.sources.picamera import list_picameras
from edgekit.device.sources.settings import CameraSettings
from edgekit.device.stages import Worker
from edgekit.errors import InputError, SourceError
from edgekit.preprocess import ImageU8
from edgekit.text import printable

NOT_PERMITTED = "permission denied: add your user to the group 'video' and log in again"
OPEN_TIMEOUT_MS = 10_000
READ_TIMEOUT_MS = 5_000


class CaptureDevice:
    """An open `cv2.VideoCapture` as a `Device`."""

    def __init__(self, capture: cv2.VideoCapture, settings: CameraSettings | None = None) -> None:
        """Take ownership of `capture`; images are flipped and rotated according to `settings`."""
        self._capture = capture
        self._settings = settings or CameraSettings()
        # Only V4L2 reports capture times; for streams the same property is the position in the stream.
        self._has_times = capture.isOpened() and capture.getBackendName() == "V4L2"
        self.fps = capture_fps(capture)

    def read(self) -> Picture | None:
        """Return the next image, or None if the device is lost."""
        try:
            ok, image = self._capture.read()
        except cv2.error:
            return None
        if not ok or image is None:
            return None
        image_bgr = oriented(np.asarray(image, np.uint8), self._settings)
        if not self._has_times:
            return image_bgr
        taken_s = float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1e3  # the driver's time stamp, see `_has_times`
        return CapturedImage(image_bgr, taken_s)

    def close(self) -> None:
        """Release the device."""
        self._capture.release()


def oriented(image_bgr: ImageU8, settings: CameraSettings) -> ImageU8:
    """Return an image, uint8 (H, W, 3), flipped and rotated according to `settings`."""
    if settings.flip_horizontal or settings.flip_vertical:
        # OpenCV's codes: 1 mirrors left and right, 0 top and bottom, -1 both.
        code = -1 if settings.flip_horizontal and settings.flip_vertical else int(settings.flip_horizontal)
        image_bgr = np.asarray(cv2.flip(image_bgr, code), np.uint8)
    if settings.rotation:
        image_bgr = np.asarray(cv2.rotate(image_bgr, ROTATION_CODES[settings.rotation]), np.uint8)
    return image_bgr


def open_stream(url: str, notify: Callable[[str], None]) -> LiveSource | VideoSource:
    """Return the source of a network address: the newest frames of a live stream, or every frame of a recording.

    Raises:
        InputError: The address is malformed, or no frame of the recording can be read.
        SourceError: No server responds, or it sends no video.
    """
    try:
        url.encode()  # FFmpeg needs UTF-8
        _ = urlsplit(url).port  # raises for a port that is no number
    except ValueError as error:
        raise InputError(f"source '{without_password(url)}' is not a network address: {error}") from error
    name = f"stream '{without_password(url)}'"
    opened: list[cv2.VideoCapture] = []  # the stream, until its source takes it; a list, which the thread can fill
    # In a thread, because a signal handler runs only when the main thread's call returns.
    opener = Worker(lambda: opened.append(_open_url(url, name)), f"open {name}")
    opener.start()
    opener.join()
    opener.check()
    # Only a recording has a number of frames.
    if capture_frame_count(opened[0]) is not None:
        return VideoSource(opened[0], without_password(url), notify)

    def connect() -> CaptureDevice:
        """Return the stream that was opened above; after a loss, open it again."""
        return CaptureDevice(opened.pop() if opened else _open_url(url, name))

    return LiveSource(name, connect, notify)


def open_v4l2(path: Path, settings: CameraSettings, notify: Callable[[str], None]) -> LiveSource:
    """Return the newest frames of a V4L2 camera.

    Raises:
        InputError: A setting is only supported by picamera2.
        SourceError: The camera does not exist, cannot be opened, or delivers no image.
    """
    name = f"camera '{path}'"
    if settings.camera_controls:
        raise InputError(f"{name}: controls need picamera2: set them with v4l2-ctl -d {path} -c NAME=VALUE")
    if settings.sensor_mode is not None:
        raise InputError(f"{name}: a sensor mode needs picamera2: choose a camera size instead")
    # Clips do not require a recording: they then encode the frames of the run.
    if settings.recording is not None and settings.recording.required:
        raise InputError(f"{name}: recording needs picamera2: save the frames instead (--save)")

    return LiveSource(name, partial(_connect_node, path, name, settings, notify), notify)


def _connect_node(path: Path, name: str, settings: CameraSettings, notify: Callable[[str], None]) -> CaptureDevice:
    """Open a V4L2 camera; report a frame size or a pixel format that differs from the requested one."""
    capture = _open_node(path, name, settings)
    size = f"{int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))}x{int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))}"
    # OpenCV returns the four letters, such as MJPG, as the bytes of a number.
    letters = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").decode("ascii", "replace")
    wanted_size = "{}x{}".format(*settings.size_wh) if settings.size_wh else None
    for wanted, found in ((wanted_size, size), (settings.pixel_format, printable(letters))):
        if wanted is not None and wanted != found:
            notify(f"{name} delivers {found} instead of {wanted}: see v4l2-ctl -d {path} --list-formats-ext")
    return CaptureDevice(capture, settings)


def v4l2_cameras(usb_only: bool, root: Path = Path("/")) -> list[Path]:
    """Return the V4L2 nodes (`/dev/videoN`) that can be cameras, USB cameras first; of each camera its first node.

    On a Raspberry Pi the codecs and the raw receiver of the CSI camera are V4L2 nodes too, but not on the USB bus.
    """
    found = []
    for node in (root / "sys/class/video4linux").glob("video*"):
        # A camera has further nodes, such as for metadata, with other indices.
        index = (node / "index").read_text().strip() if (node / "index").exists() else "0"
        is_usb = (node / "device/subsystem").resolve().name == "usb"
        if index == "0" and (is_usb or not usb_only):
            number = int(re.sub(r"\D", "", node.name) or 0)
            found.append((not is_usb, number, Path("/dev") / node.name))  # sorted by these: False before True
    return [path for _is_not_usb, _number, path in sorted(found)]


def without_password(url: str) -> str:
    """Return an address with its password replaced by `***`."""
    return re.sub(r"(://[^\s/?#:@]*):[^\s/?#]*@", r"\1:***@", url)


def _open_url(url: str, name: str) -> cv2.VideoCapture:
    """Return an opened network stream; raise SourceError if it does not respond. `name` is for messages."""
    # Pairs of property and value; the time-outs take effect only if they are given on opening.
    settings = [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_TIMEOUT_MS,
        cv2.CAP_PROP_READ_TIMEOUT_MSEC, READ_TIMEOUT_MS,
    ]  # fmt: skip
    capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, settings)
    if not capture.isOpened():
        raise SourceError(f"{name} cannot be opened: check the address and the sender, such as with ffplay")
    return capture


def _open_node(path: Path, name: str, settings: CameraSettings) -> cv2.VideoCapture:
    """Return an opened V4L2 camera with the requested format, size and rate; raises as `open_v4l2`."""
    if not path.exists():
        found = ", ".join(str(node) for node in v4l2_cameras(usb_only=False)) or "none"
        raise SourceError(f"{name} does not exist: connect it, or use another camera (found: {found})")
    if not os.access(path, os.R_OK | os.W_OK):
        raise SourceError(f"{name}: {NOT_PERMITTED}")
    capture = cv2.VideoCapture(str(path), cv2.CAP_V4L2)
    if not capture.isOpened():
        raise SourceError(
            f"{name} cannot be opened: in use, or not a camera (see fuser -v {path}): stop that program or use another "
            "camera"
        )
    # In this order: the available sizes depend on the pixel format, and the frame rates on the size.
    if settings.pixel_format is not None:
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*settings.pixel_format))
    if settings.size_wh is not None:
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, settings.size_wh[0])
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, settings.size_wh[1])
    whole_fps = round(settings.fps or 0)  # OpenCV passes on whole rates only
    if whole_fps > 0:
        capture.set(cv2.CAP_PROP_FPS, whole_fps)
    return capture


@dataclass(frozen=True)
class Camera:
    """One camera.

    Attributes:
        name: The value for `--camera`.
        kind: "picamera2" or "v4l2".
        model: The name that the driver reports.
        modes: Sensor modes of picamera2, ready for JSON; `v4l2-ctl -d NAME --list-formats-ext` lists those of other
            cameras.
        blocked: Why the camera cannot be opened now, and the cure; None if no reason is known. A V4L2 camera
            that another program uses is only seen when it is opened.
    """

    name: str
    kind: str
    model: str
    modes: tuple[dict[str, Any], ...]
    blocked: str | None


@dataclass(frozen=True)
class DiscoveredCameras:
    """The cameras found, and one line for each obstacle that affects all cameras of a kind."""

    cameras: tuple[Camera, ...]
    obstacles: tuple[str, ...]


def list_cameras(
    root: Path = Path("/"), list_csi: Callable[[], list[dict[str, Any]]] = list_picameras, board: Board | None = None
) -> DiscoveredCameras:
    """Return the cameras of this machine, without disturbing programs that use them.

    Args:
        root: Root of the file system that is searched.
        list_csi: Lists the cameras of picamera2; default: those of this machine.
        board: The machine; default: this one.
    """
    board = board or read_board(root)
    obstacles = []
    cameras: list[Camera] = []
    try:
        cameras += [_csi_camera(entry) for entry in list_csi()]
    except SourceError as error:
        if board.is_raspberry_pi:  # other machines have no CSI camera
            obstacles.append(str(error))
    cameras += [_v4l2_camera(node, root) for node in v4l2_cameras(usb_only=board.is_raspberry_pi, root=root)]
    return DiscoveredCameras(tuple(cameras), tuple(obstacles))


def _csi_camera(entry: dict[str, Any]) -> Camera:
    """Return the camera of an entry of `picamera.list_picameras`."""
    number = int(entry.get("Num", 0))
    error = entry.get("error")
    modes = tuple({"sensor_mode": index, **mode} for index, mode in enumerate(entry.get("modes", ())))
    return Camera(
        name="picamera2" if number == 0 else f"picamera2:{number}",
        kind="picamera2",
        model=str(entry.get("Model") or entry.get("Id") or "unknown"),
        modes=modes,
        # A camera that could be opened has `modes`, possibly empty, and may also have an error.
        blocked=f"{error}: stop the program that uses it" if error and "modes" not in entry else None,
    )


def _v4l2_camera(node: Path, root: Path) -> Camera:
    """Return the camera of a V4L2 node below `root`."""
    name_file = root / "sys/class/video4linux" / node.name / "name"
    model = printable(name_file.read_text().strip()) if name_file.exists() else "unknown"
    may_open = os.access(root / node.relative_to("/"), os.R_OK | os.W_OK)
    return Camera(str(node), "v4l2", model, (), None if may_open else NOT_PERMITTED)
