"""The Raspberry Pi's camera through picamera2: the one module that imports it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.device.sources.live import LiveSource
from edgekit.errors import SourceError
from edgekit.preprocess import ImageU8

# picamera2 names formats as DRM does, most significant byte first: a pixel of "RGB888" lies in memory as B, G, R
# (Picamera2 manual, "Image formats").
_FORMAT_BGR_IN_MEMORY = "RGB888"
_SIZE_WH = (640, 480)
_FPS = 30.0
# picamera2's own default for video is 6; each buffer is contiguous memory that a 512 MB board hardly has.
_BUFFERS = 3


def open_picamera(notify: Callable[[str], None]) -> LiveSource:
    """Return the newest frames of the first camera that libcamera knows.

    Raises:
        SourceError: picamera2 is missing or broken, or there is no camera, or it is in use.
    """
    return LiveSource("camera 'picamera2'", _PiCamera, notify)


def to_bgr(picture: NDArray[np.uint8]) -> ImageU8:
    """Return a main-stream picture of format RGB888 as uint8 (H, W, 3) B, G, R, without copying.

    Raises:
        SourceError: It has another shape, so the camera gives another format.
    """
    if picture.ndim != 3 or picture.shape[2] != 3:
        raise SourceError(
            f"camera 'picamera2' gives pictures of shape {picture.shape} instead of {_FORMAT_BGR_IN_MEMORY}: "
            "try --camera usb"
        )
    return picture


class _PiCamera:
    fps: float | None = _FPS

    def __init__(self) -> None:
        self._camera = _start(_picamera2())

    def read(self) -> ImageU8 | None:
        try:
            picture = self._camera.capture_array("main")
        except (RuntimeError, OSError):
            return None
        return to_bgr(picture)

    def close(self) -> None:
        self._camera.close()


def _picamera2() -> Any:
    os.environ.setdefault("LIBCAMERA_LOG_LEVELS", "*:ERROR")
    try:
        import picamera2
    except ImportError as error:
        raise SourceError(
            f"camera 'picamera2' needs a module that is not there ({error}): sudo apt install python3-picamera2, "
            "and make the virtual environment with --system-site-packages"
        ) from error
    except (
        Exception
    ) as error:  # a numpy of another ABI than the system's picamera2 was built for: ValueError and others
        raise SourceError(
            f"camera 'picamera2' does not load ({error}): take the system's numpy, as its picamera2 does"
        ) from error
    return picamera2.Picamera2


def _start(picamera2_class: Any) -> Any:
    if not picamera2_class.global_camera_info():
        raise SourceError(
            "camera 'picamera2': no camera found: check the ribbon cable and 'rpicam-hello --list-cameras'"
        )
    try:
        camera = picamera2_class()
    except Exception as error:
        raise SourceError(f"camera 'picamera2' cannot be opened ({error}): stop the program that uses it") from error
    try:
        camera.configure(
            camera.create_video_configuration(
                main={"size": _SIZE_WH, "format": _FORMAT_BGR_IN_MEMORY},
                controls={"FrameRate": _FPS},
                buffer_count=_BUFFERS,
            )
        )
        camera.start()
    except Exception as error:
        camera.close()
        raise SourceError(f"camera 'picamera2' does not start ({error}): stop the program that uses it") from error
    return camera
