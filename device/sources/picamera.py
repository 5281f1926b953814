"""The Raspberry Pi's cameras through picamera2: the one module that imports it.

Frames are taken as the camera delivers them, luma and chroma: one copy out of the camera's memory, colours only where
somebody wants them. Beside the main stream, for crops and preview, a smaller one feeds the detector.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from edgekit.device.region import detector_input_px
from edgekit.device.sources.live import LiveSource, Shot
from edgekit.device.sources.settings import CameraSettings
from edgekit.device.sources.watched import patience_s
from edgekit.device.sources.yuv import Layout, Planes, split_planes
from edgekit.errors import InputError, SourceError

# Every Raspberry Pi's camera hardware makes it; others (libcamera's virtual camera, USB ones) may answer with NV12.
_FORMAT = "YUV420"
_LAYOUTS: dict[str, Layout] = {"YUV420": "i420", "NV12": "nv12"}
_SIZE_WH = (640, 480)
_FPS = 30.0
# picamera2's own default for video is 6; each buffer is contiguous memory that a 512 MB board hardly has.
_BUFFERS = 3
# The detector's stream is no smaller on its longer side: faces are followed in it too.
_SMALL_SIDE_PX = 320
# Of what libcamera says when something fails: a configuration that it refuses comes as a whole.
_REASON_CHARS = 200
# Ages beyond this are no ages: another clock's time.
_MAX_AGE_S = 10.0


def open_picamera(number: int, settings: CameraSettings, notify: Callable[[str], None]) -> LiveSource:
    """Return the newest frames of a camera that libcamera knows, by its number from 0.

    Raises:
        SourceError: picamera2 is missing or broken, or there is no such camera, or it is in use.
        InputError: The camera has no such control or sensor mode, or the region lies outside its frames.
    """
    name = _name(number)
    # Before the camera is waited for: the import takes a slow board seconds, and cannot hang.
    picamera2_class = _picamera2(name)
    return LiveSource(name, lambda: _PiCamera(picamera2_class, name, number, settings), notify)


def list_picameras() -> list[dict[str, Any]]:
    """Return what picamera2 says of each camera: `Num`, `Model`, `Id` and more, and its sensor's modes as `modes`.

    A camera that is in use has its reason as `error` instead of modes.

    Raises:
        SourceError: picamera2 is missing or broken.
    """
    picamera2_class = _picamera2(_name(0))
    found: list[dict[str, Any]] = []
    try:
        cameras = picamera2_class.global_camera_info()
    except Exception as error:  # as in _start
        raise SourceError(f"libcamera does not answer ({_reason(error)}): try rpicam-hello") from error
    for info in cameras:
        entry = dict(info)
        try:
            camera = picamera2_class(int(info.get("Num", len(found))))
        except Exception as error:  # picamera2 raises whatever libcamera and its own code do
            entry["error"] = _reason(error)
        else:
            try:
                entry["modes"] = [_mode(mode) for mode in camera.sensor_modes]
            except Exception as error:  # not every pipeline handler has raw modes
                entry["modes"], entry["error"] = [], f"no modes: {error}"
            finally:
                camera.close()
        found.append(entry)
    return found


class _PiCamera:
    def __init__(self, picamera2_class: Any, name: str, number: int, settings: CameraSettings) -> None:
        self.fps: float | None = settings.fps or _FPS
        self._name = name
        self._rotation = settings.rotation
        self._took_s: float | None = None
        self._camera = _start(picamera2_class, name, number, settings)
        try:
            self._streams = _streams(self._camera.camera_configuration(), name)
        except BaseException:
            self._camera.close()
            raise

    def read(self) -> Shot | None:
        started_s = time.monotonic()
        try:
            # Of a sensor gone silent no request ever comes; a thread that waits for one would hold the camera for ever,
            # and nobody could open it again. A wait that ends is a TimeoutError, which is an OSError.
            request = self._camera.capture_request(wait=patience_s(self._took_s))
        except (RuntimeError, OSError):
            return None
        self._took_s = time.monotonic() - started_s
        try:
            planes = {name: stream.planes(request.make_buffer(name)) for name, stream in self._streams.items()}
            taken_s = _taken_s(request.get_metadata())
        finally:
            request.release()
        turned = {name: picture.rotated(self._rotation) for name, picture in planes.items()}
        return Shot(turned["main"], taken_s, turned.get("lores"))

    def close(self) -> None:
        self._camera.close()


class _Stream:
    """How a stream's buffers are laid out."""

    def __init__(self, stream: dict[str, Any], full_range: bool, name: str) -> None:
        if stream["format"] not in _LAYOUTS:
            raise SourceError(
                f"{name} gives pictures of format {stream['format']} instead of {_FORMAT}: try --camera usb"
            )
        self._layout = _LAYOUTS[stream["format"]]
        self._size_wh = (int(stream["size"][0]), int(stream["size"][1]))
        self._stride = int(stream["stride"])
        self._full_range = full_range

    def planes(self, buffer: Any) -> Planes:
        data = np.asarray(buffer, np.uint8).reshape(-1)
        return split_planes(data, self._size_wh, self._stride, self._layout, self._full_range)


def small_size(size_wh: tuple[int, int], detector_px: int) -> tuple[int, int] | None:
    """Return the size of the detector's stream beside a main one; None where the main one is small enough.

    Its longer side is at least `detector_px`: a detector that was asked for more would see enlarged pixels.

    A whole fraction of the main size where that gives even numbers, so that both show exactly the same.
    """
    step = math.floor(max(size_wh) / max(detector_px, _SMALL_SIDE_PX))
    if step < 2:
        return None
    return size_wh[0] // step // 2 * 2, size_wh[1] // step // 2 * 2


def _name(number: int) -> str:
    return "camera 'picamera2'" if number == 0 else f"camera 'picamera2:{number}'"


def _picamera2(name: str) -> Any:
    os.environ.setdefault("LIBCAMERA_LOG_LEVELS", "*:ERROR")
    try:
        import picamera2
    except ImportError as error:
        raise SourceError(
            f"{name} needs a module that is not there ({error}): sudo apt install python3-picamera2, "
            "and make the virtual environment with --system-site-packages"
        ) from error
    except (
        Exception
    ) as error:  # a numpy of another ABI than the system's picamera2 was built for: ValueError and others
        raise SourceError(f"{name} does not load ({error}): take the system's numpy, as its picamera2 does") from error
    return picamera2.Picamera2


def _start(picamera2_class: Any, name: str, number: int, settings: CameraSettings) -> Any:
    try:
        cameras = picamera2_class.global_camera_info()
    except Exception as error:  # as below; libcamera's manager does not start without the rights it needs
        raise SourceError(f"{name}: libcamera does not answer ({_reason(error)}): try rpicam-hello") from error
    if not cameras:
        raise SourceError(f"{name}: no camera found: check the ribbon cable and 'rpicam-hello --list-cameras'")
    if number >= len(cameras):
        raise SourceError(f"{name} does not exist: cameras here are 0 to {len(cameras) - 1} (edgekit cameras)")
    try:
        camera = picamera2_class(number)
    except Exception as error:
        raise SourceError(f"{name} cannot be opened ({_reason(error)}): {_cure(error)}") from error
    try:
        camera.configure(_configuration(camera, name, settings))
        camera.start()
    except InputError:
        camera.close()
        raise
    except Exception as error:
        camera.close()
        raise SourceError(f"{name} does not start ({_reason(error)}): {_cure(error)}") from error
    return camera


def _reason(error: BaseException) -> str:
    """Return what went wrong: picamera2 says only that it did, and what libcamera said is the cause of that."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error) or type(error).__name__)[:_REASON_CHARS]


def _cure(error: BaseException) -> str:
    reason = _reason(error).lower()
    if "memory" in reason or "allocat" in reason:
        return "take a smaller --camera-size, or --camera-buffers 2"
    if "busy" in reason or "acquire" in reason:
        return "stop the program that uses it (fuser -v /dev/media*)"
    return "stop other programs that use it, and see what 'rpicam-hello' says"


def _configuration(camera: Any, name: str, settings: CameraSettings) -> Any:
    import libcamera

    size_wh = settings.size_wh or _SIZE_WH
    small_wh = small_size(size_wh, _whole_picture_px(size_wh, settings))
    unknown = sorted(set(settings.controls) - set(camera.camera_controls))
    if unknown:
        here = ", ".join(sorted(camera.camera_controls)) or "none"
        raise InputError(f"{name} has no control '{unknown[0]}': choose one of those here: {here}")
    options: dict[str, Any] = {}
    if settings.sensor_mode is not None:
        modes = camera.sensor_modes
        if settings.sensor_mode >= len(modes):
            raise InputError(f"{name} has no sensor mode {settings.sensor_mode}: choose 0 to {len(modes) - 1}")
        mode = modes[settings.sensor_mode]
        options["sensor"] = {"output_size": mode["size"], "bit_depth": mode["bit_depth"]}
    # A camera whose rate cannot be set (a virtual one) refuses the attempt.
    rate = {"FrameRate": settings.fps or _FPS} if "FrameDurationLimits" in camera.camera_controls else {}
    return camera.create_video_configuration(
        main={"size": size_wh, "format": _FORMAT},
        lores=None if small_wh is None else {"size": small_wh, "format": _FORMAT},
        transform=libcamera.Transform(hflip=settings.flip_horizontal, vflip=settings.flip_vertical),
        # Full range: the luma is the gray that nets were trained on.
        colour_space=libcamera.ColorSpace.Sycc(),
        controls=rate | dict(settings.controls),
        buffer_count=settings.buffers or _BUFFERS,
        # Take the next frame that comes, not one that has been lying there.
        queue=False,
        # Without a display stream picamera2 needs not hold a buffer back for it.
        display=None,
        encode=None,
        **options,
    )


def _whole_picture_px(size_wh: tuple[int, int], settings: CameraSettings) -> int:
    """Return the longer side of a picture of the whole view in which the region has the pixels the detector takes.

    Raises:
        InputError: The region does not lie inside the frame.
    """
    seen_wh = size_wh
    if settings.region is not None:
        turned_wh = size_wh if settings.rotation in (0, 180) else size_wh[::-1]
        left, top, right, bottom = settings.region.xyxy(turned_wh)
        seen_wh = right - left, bottom - top
    detector_px = settings.detector_px or detector_input_px(seen_wh, settings.min_face_px)
    return math.ceil(detector_px * max(size_wh) / max(seen_wh))


def _streams(configuration: Any, name: str) -> dict[str, _Stream]:
    colour_space = configuration.get("colour_space")
    full_range = "full" in str(getattr(colour_space, "range", "full")).lower()
    return {
        stream: _Stream(configuration[stream], full_range, name)
        for stream in ("main", "lores")
        if configuration.get(stream) is not None
    }


def _taken_s(metadata: Any) -> float | None:
    """Return when the sensor began the frame, on the clock of `time.monotonic`, from libcamera's time since boot."""
    stamp_ns = metadata.get("SensorTimestamp")
    if not stamp_ns:
        return None
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - stamp_ns / 1e9
    return time.monotonic() - age_s if 0 <= age_s <= _MAX_AGE_S else None


def _mode(mode: Any) -> dict[str, Any]:
    """Return a sensor mode as plain values."""
    size_wh = [int(value) for value in mode["size"]]
    fps = mode.get("fps")
    bits = mode.get("bit_depth")
    return {
        "size_wh": size_wh,
        "fps": round(float(fps), 2) if fps else None,
        "bit_depth": int(bits) if bits else None,
        "format": str(mode.get("format", "")),
    }
