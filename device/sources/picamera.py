"""Cameras of libcamera through picamera2; no other module imports it.

Frames are YUV planes as the camera delivers them, copied once from the camera's memory and converted to B, G, R on
demand. The main stream serves crops and preview, a smaller second stream (`lores`) serves the detector.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from edgekit.device.frame import Layout, Planes, split_planes
from edgekit.device.region import detector_input_px
from edgekit.device.sources.live import CapturedImage, LiveSource
from edgekit.device.sources.settings import CameraSettings, EncodedPacket, EncodedVideo
from edgekit.errors import InputError, SourceError

# Supported by the camera hardware of every Raspberry Pi; other cameras may deliver NV12 instead.
_FORMAT = "YUV420"
_LAYOUTS: dict[str, Layout] = {"YUV420": "i420", "NV12": "nv12"}
# Minimum of the longer side of the detector's stream, because the tracker uses this stream too.
_MIN_LORES_PX = 320
_SIZE_WH = (640, 480)
_FPS = 30.0
_RATE = "FrameDurationLimits"
# The default of picamera2 for video is 6, but contiguous memory is scarce on a board with 512 MB.
_BUFFERS = 3
# The encoder holds some of the buffers.
_BUFFERS_RECORDED = 6
# Longer than an exposure.
READ_TIMEOUT_S = 10.0
_CURE = "stop the program that uses it (fuser -v /dev/media*), use a smaller camera size, or check with rpicam-hello"
# libcamera's error for a rejected configuration contains the whole configuration.
_MAX_REASON_CHARS = 200


def open_picamera(number: int, settings: CameraSettings, notify: Callable[[str], None]) -> LiveSource:
    """Return the newest frames of a camera of libcamera; the first camera is number 0.

    Raises:
        SourceError: picamera2 is missing or broken, or the camera does not exist or is in use.
        InputError: The camera lacks a requested control or sensor mode, a pixel format is requested, or the region lies
            outside the frame.
    """
    name = _name(number)
    # Imported before the time-out for opening starts: this import takes seconds on a slow board.
    picamera2_class = _picamera2(name)

    def connect() -> _PiCamera:
        return _PiCamera(picamera2_class, name, number, settings, notify)

    return LiveSource(name, connect, notify)


def list_picameras() -> list[dict[str, Any]]:
    """Return picamera2's description of each camera (`Num`, `Model`, `Id`, ...) with the sensor modes as `modes`.

    A camera that cannot be opened has `error`, the reason, instead of `modes`. A camera whose modes cannot be read has
    `error`, and no entries in `modes`.

    Raises:
        SourceError: picamera2 or libcamera is missing or broken.
    """
    picamera2_class = _picamera2(_name(0))
    found: list[dict[str, Any]] = []
    for info in _camera_infos(picamera2_class, "the camera list"):
        entry = dict(info)
        try:
            camera = picamera2_class(int(info.get("Num", len(found))))
        except Exception as error:  # picamera2 raises classes of its own and of libcamera
            entry["error"] = _reason(error)
        else:
            try:
                entry["modes"] = [_mode(mode) for mode in camera.sensor_modes]
            except Exception as error:  # some pipeline handlers of libcamera have no raw modes
                entry["modes"], entry["error"] = [], f"no modes: {error}"
            finally:
                camera.close()
        found.append(entry)
    return found


class _PiCamera:
    """A started camera as a `live.Device`; it also encodes the video for `settings.recording`."""

    def __init__(
        self,
        picamera2_class: Any,
        name: str,
        number: int,
        settings: CameraSettings,
        notify: Callable[[str], None],
    ) -> None:
        """Open and start the camera, and its encoder if it is recorded; raises as `open_picamera`."""
        self.fps: float | None = settings.fps or _FPS
        self._name = name
        self._rotation = settings.rotation
        self._recording = settings.recording
        self._camera = _start(picamera2_class, name, number, settings)
        try:
            configuration = self._camera.camera_configuration()
            self._readers = _plane_readers(configuration, name)
            if self._recording is not None:
                self._record(self._recording, configuration["main"]["size"], notify)
        except BaseException:
            self.close()
            raise

    def _record(self, recording: EncodedVideo, size_wh: tuple[int, int], notify: Callable[[str], None]) -> None:
        """Start the encoder; if it fails, continue without it unless the recording is required."""
        recording.start(size_wh)  # first, because the encoder delivers packets at once
        try:
            _start_encoder(self._camera, recording, self.fps or _FPS, self._name, notify)
        except SourceError as error:
            if recording.required:
                raise
            recording.stop()
            self._recording = None
            notify(f"{error}: clips have the frames of the run")

    def read(self) -> CapturedImage | None:
        """Return the next image, rotated; None if the camera is lost."""
        try:
            # Without a time-out a thread could wait for ever and hold the camera, which could not be opened again.
            # picamera2 raises a TimeoutError, which is an OSError.
            request = self._camera.capture_request(wait=READ_TIMEOUT_S)
        except (RuntimeError, OSError):
            return None
        try:
            planes = {name: read(request.make_buffer(name)) for name, read in self._readers.items()}
            taken_s = _taken_s(request.get_metadata())
        finally:
            request.release()
        main = planes["main"].rotated(self._rotation)
        lores = planes["lores"].rotated(self._rotation) if "lores" in planes else None
        return CapturedImage(main, taken_s, lores)

    def close(self) -> None:
        """Stop the encoder and close the camera."""
        try:
            if self._camera.encoders:
                self._camera.stop_encoder()
        finally:
            # The recording stops before the camera is closed. If this `close` is late, another thread may open the
            # camera as soon as it is closed, and start the same recording.
            if self._recording is not None:
                self._recording.stop()
            self._camera.close()


def _name(number: int) -> str:
    """Return the name of a camera in messages."""
    return "camera 'picamera2'" if number == 0 else f"camera 'picamera2:{number}'"


def _picamera2(name: str) -> Any:
    """Return the class `picamera2.Picamera2`; raise SourceError if it cannot be imported. `name` is for messages."""
    # libcamera logs to stderr; a level that the user has set stays.
    os.environ.setdefault("LIBCAMERA_LOG_LEVELS", "*:ERROR")
    # The error message contains the reason: picamera2's own log lines on stderr would repeat it.
    logging.getLogger("picamera2").addHandler(logging.NullHandler())
    try:
        import picamera2
    except Exception as error:  # ImportError, or from a numpy with another ABI ValueError and others
        raise SourceError(
            f"{name}: picamera2 cannot be imported ({error}): run sudo apt install python3-picamera2, make the virtual "
            "environment with --system-site-packages, and use the system's numpy"
        ) from error
    return picamera2.Picamera2


def _camera_infos(picamera2_class: Any, name: str) -> list[dict[str, Any]]:
    """Return picamera2's description of each camera; raise SourceError if libcamera fails."""
    try:
        return list(picamera2_class.global_camera_info())
    except Exception as error:  # for example missing permissions for libcamera's camera manager
        raise SourceError(f"{name}: libcamera failed ({_reason(error)}): check with rpicam-hello") from error


def _start(picamera2_class: Any, name: str, number: int, settings: CameraSettings) -> Any:
    """Return a Picamera2 object that is configured and started; raises as `open_picamera`."""
    cameras = _camera_infos(picamera2_class, name)
    if not cameras:
        raise SourceError(f"{name}: no camera found: check the ribbon cable and 'rpicam-hello --list-cameras'")
    if number >= len(cameras):
        raise SourceError(f"{name} does not exist: use a number from 0 to {len(cameras) - 1} (see edgekit cameras)")
    try:
        camera = picamera2_class(number)
    except Exception as error:
        raise SourceError(f"{name} cannot be opened ({_reason(error)}): {_CURE}") from error
    try:
        camera.configure(_configuration(camera, name, settings))
        camera.start()
    except InputError:  # a setting that the camera lacks, see `_configuration`
        camera.close()
        raise
    except Exception as error:
        camera.close()
        raise SourceError(f"{name} does not start ({_reason(error)}): {_CURE}") from error
    return camera


def _start_encoder(camera: Any, recording: EncodedVideo, fps: float, name: str, notify: Callable[[str], None]) -> None:
    """Encode the main stream into `recording` in hardware, or in software on a board without an H.264 encoder."""
    from picamera2.encoders import H264Encoder, LibavH264Encoder
    from picamera2.outputs import Output

    class RecordingOutput(Output):  # type: ignore[misc]
        # picamera2 calls it for each packet, `timestamp` in microseconds; its newer versions pass `_more`.
        def outputframe(self, frame: Any, keyframe: bool = True, timestamp: int = 0, *_more: Any) -> None:
            recording.put(EncodedPacket(bytes(frame), keyframe, timestamp))

    key_every = max(1, round(fps))  # one key frame per second
    try:
        try:
            # On a Pi 5, which has no hardware encoder, this class of picamera2 encodes in software.
            camera.start_encoder(H264Encoder(iperiod=key_every), RecordingOutput(), name="main")
        except OSError as error:
            notify(f"{name}: no hardware encoder ({error.strerror or error}): encoding in software")
            camera.start_encoder(LibavH264Encoder(iperiod=key_every), RecordingOutput(), name="main")
    except Exception as error:  # picamera2 raises classes of its own and of PyAV
        raise SourceError(f"{name} cannot be recorded ({_reason(error)})") from error


def _reason(error: BaseException) -> str:
    """Return the message of the root cause: libcamera's error, which picamera2 wraps in one without details."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error) or type(error).__name__)[:_MAX_REASON_CHARS]


def _configuration(camera: Any, name: str, settings: CameraSettings) -> Any:
    """Return picamera2's configuration for the settings; raise InputError if the camera does not support them."""
    import libcamera

    size_wh = settings.size_wh or _SIZE_WH
    lores_wh = lores_size(size_wh, _full_view_px(size_wh, settings)) if settings.detects else None
    if settings.pixel_format is not None:
        raise InputError(f"{name}: a pixel format is for USB cameras: leave it out, or choose camera 'usb'")
    unknown = sorted(set(settings.controls) - set(camera.camera_controls))
    if unknown:
        supported = ", ".join(sorted(camera.camera_controls)) or "none"
        raise InputError(f"{name} has no control '{unknown[0]}': it supports {supported}")
    optional = {} if settings.sensor_mode is None else {"sensor": _sensor(camera, name, settings.sensor_mode)}
    # A camera without this control rejects a rate, and picamera2 prefers FrameRate to the user's limits.
    sets_rate = _RATE in camera.camera_controls and _RATE not in settings.controls
    rate = {"FrameRate": settings.fps or _FPS} if sets_rate else {}
    return camera.create_video_configuration(
        main={"size": size_wh, "format": _FORMAT},
        lores=None if lores_wh is None else {"size": lores_wh, "format": _FORMAT},
        transform=libcamera.Transform(hflip=settings.flip_horizontal, vflip=settings.flip_vertical),
        # Full range, because full-range luma is the gray of the training data.
        colour_space=libcamera.ColorSpace.Sycc(),
        controls=rate | dict(settings.controls),
        buffer_count=_BUFFERS if settings.recording is None else _BUFFERS_RECORDED,
        # Always read the next frame, never a queued one.
        queue=False,
        # No display stream, so that picamera2 reserves no buffer for it.
        display=None,
        encode=None if settings.recording is None else "main",
        **optional,
    )


def _sensor(camera: Any, name: str, sensor_mode: int) -> dict[str, Any]:
    """Return the part of picamera2's configuration that chooses a sensor mode; raise InputError if there is no such."""
    modes = camera.sensor_modes
    if sensor_mode >= len(modes):
        raise InputError(f"{name} has no sensor mode {sensor_mode}: use 0 to {len(modes) - 1}")
    mode = modes[sensor_mode]
    return {"output_size": mode["size"], "bit_depth": mode["bit_depth"]}


def _taken_s(metadata: Any) -> float | None:
    """Return the start of exposure on the clock of `time.monotonic`; libcamera's stamp is the time since boot."""
    stamp_ns = metadata.get("SensorTimestamp")
    if not stamp_ns:
        return None
    return time.monotonic() - (time.clock_gettime(time.CLOCK_BOOTTIME) - float(stamp_ns) / 1e9)


def _mode(mode: Any) -> dict[str, Any]:
    """Return a sensor mode as values for JSON."""
    size_wh = [int(value) for value in mode["size"]]
    fps = mode.get("fps")
    bits = mode.get("bit_depth")
    return {
        "size_wh": size_wh,
        "fps": round(float(fps), 2) if fps else None,
        "bit_depth": int(bits) if bits else None,
        "format": str(mode.get("format", "")),
    }


def lores_size(size_wh: tuple[int, int], full_view_px: int) -> tuple[int, int] | None:
    """Return the (width, height) of the detector's stream, or None if the detector can use the main stream.

    The longer side is at least `full_view_px`, so that the detector's input is never enlarged. The size is that of the
    main stream, `size_wh`, divided by an integer and rounded down to even numbers, so that both streams show the same
    view.
    """
    divisor = math.floor(max(size_wh) / max(full_view_px, _MIN_LORES_PX))
    if divisor < 2:
        return None
    return size_wh[0] // divisor // 2 * 2, size_wh[1] // divisor // 2 * 2


def _full_view_px(size_wh: tuple[int, int], settings: CameraSettings) -> int:
    """Return the longer side of a frame, in pixels, whose region of interest is as large as the detector's input.

    Raises:
        InputError: The region lies outside the frame.
    """
    region_wh = size_wh
    if settings.region is not None:
        # The region is one of the rotated frame, `size_wh` that of the frame before its rotation. The longer side of
        # both frames is the same.
        rotated_wh = size_wh if settings.rotation in (0, 180) else size_wh[::-1]
        left, top, right, bottom = settings.region.xyxy(rotated_wh)
        region_wh = right - left, bottom - top
    detector_px = settings.detector_px or detector_input_px(region_wh, settings.min_face_px)
    return math.ceil(detector_px * max(size_wh) / max(region_wh))


def _plane_readers(configuration: Any, name: str) -> dict[str, Callable[[Any], Planes]]:
    """Return the readers of the streams of a picamera2 configuration: "main", and "lores" if present.

    A reader returns the luma and chroma planes of a buffer of its stream as views; a buffer that is too small raises
    SourceError. `name` is for messages.

    Raises:
        SourceError: A stream has an unsupported format.
    """
    colour_space = configuration.get("colour_space")
    # Cameras without this entry are full-range.
    full_range = "full" in str(getattr(colour_space, "range", "full")).lower()
    present = {stream: configuration[stream] for stream in ("main", "lores") if configuration.get(stream) is not None}
    return {stream: _plane_reader(description, full_range, name) for stream, description in present.items()}


def _plane_reader(stream: dict[str, Any], full_range: bool, name: str) -> Callable[[Any], Planes]:
    """Return the reader of a stream with picamera2's description `stream`; see `_plane_readers`."""
    if stream["format"] not in _LAYOUTS:
        raise SourceError(f"{name} delivers format {stream['format']} instead of {_FORMAT}: try camera 'usb'")
    layout, stride = _LAYOUTS[stream["format"]], int(stream["stride"])
    size_wh = (int(stream["size"][0]), int(stream["size"][1]))

    def read_planes(buffer: Any) -> Planes:
        return split_planes(np.asarray(buffer, np.uint8).reshape(-1), size_wh, stride, layout, full_range)

    return read_planes
