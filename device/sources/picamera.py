"""The Raspberry Pi's cameras through picamera2: the one module that imports it.

Frames are taken as the camera delivers them, luma and chroma: one copy out of the camera's memory, colours only where
somebody wants them. Beside the main stream, for crops and preview, a smaller one feeds the detector.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import Any

from edgekit.device.sinks.h264_recorder import Packet, PieceWriter
from edgekit.device.sources.live import CapturedImage, LiveSource
from edgekit.device.sources.picamera_streams import FORMAT, small_size, streams_of, whole_picture_px
from edgekit.device.sources.settings import CameraSettings
from edgekit.device.sources.timeout_guard import patience_s
from edgekit.errors import InputError, SourceError

_SIZE_WH = (640, 480)
_FPS = 30.0
_RATE = "FrameDurationLimits"
# picamera2's own default for video is 6; each buffer is contiguous memory that a 512 MB board hardly has.
_BUFFERS = 3
# The encoder holds some of them.
_BUFFERS_RECORDED = 6
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
    writer = None if settings.recording is None else PieceWriter(settings.recording, notify)

    def connect() -> _PiCamera:
        return _PiCamera(picamera2_class, name, number, settings, writer)

    return LiveSource(name, connect, notify)


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
    def __init__(
        self,
        picamera2_class: Any,
        name: str,
        number: int,
        settings: CameraSettings,
        writer: PieceWriter | None = None,
    ) -> None:
        self.fps: float | None = _rate_hz(settings)
        self._name = name
        self._rotation = settings.rotation
        self._took_s: float | None = None
        self._writer = writer
        self._camera = _start(picamera2_class, name, number, settings)
        try:
            configuration = self._camera.camera_configuration()
            self._streams = streams_of(configuration, name)
            if writer is not None:
                writer.start(configuration["main"]["size"])
                _start_encoder(self._camera, writer, name)
        except BaseException:
            self.close()
            raise

    def read(self) -> CapturedImage | None:
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
        return CapturedImage(turned["main"], taken_s, turned.get("lores"))

    def close(self) -> None:
        try:
            if self._camera.encoders:
                self._camera.stop_encoder()
        finally:
            self._camera.close()
            if self._writer is not None:
                self._writer.stop()


def _name(number: int) -> str:
    return "camera 'picamera2'" if number == 0 else f"camera 'picamera2:{number}'"


def _picamera2(name: str) -> Any:
    os.environ.setdefault("LIBCAMERA_LOG_LEVELS", "*:ERROR")
    # What picamera2 logs about a failure would stand on stderr beside the error that says it.
    logging.getLogger("picamera2").addHandler(logging.NullHandler())
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


def _start_encoder(camera: Any, writer: PieceWriter, name: str) -> None:
    """Let the board's H.264 encoder give the main stream to `writer`; where there is none, the processor does it."""
    from picamera2.encoders import H264Encoder, LibavH264Encoder
    from picamera2.outputs import Output

    class ToWriter(Output):  # type: ignore[misc]
        def outputframe(self, frame: Any, keyframe: bool = True, timestamp: int = 0, *more: Any) -> None:
            del more
            writer.put(Packet(bytes(frame), keyframe, timestamp))

    try:
        try:
            # On a Pi 5, which has no encoder, picamera2's own choice is the processor.
            camera.start_encoder(H264Encoder(), ToWriter(), name="main")
        except OSError as error:
            writer.notify(f"{name}: no hardware encoder ({error.strerror or error}): the processor encodes")
            camera.start_encoder(LibavH264Encoder(), ToWriter(), name="main")
    except Exception as error:  # picamera2 raises whatever PyAV and its own code do
        raise SourceError(f"{name} cannot be recorded ({_reason(error)}): leave --record out") from error


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
    small_wh = small_size(size_wh, whole_picture_px(size_wh, settings))
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
    if _RATE in settings.controls and settings.fps is not None:
        raise InputError(f"--control {_RATE} and --camera-fps both say how fast {name} is: leave one out")
    # A camera whose rate cannot be set (a virtual one) refuses the attempt; picamera2 puts FrameRate over the limits.
    is_ours = _RATE in camera.camera_controls and _RATE not in settings.controls
    rate = {"FrameRate": _rate_hz(settings)} if is_ours else {}
    return camera.create_video_configuration(
        main={"size": size_wh, "format": FORMAT},
        lores=None if small_wh is None else {"size": small_wh, "format": FORMAT},
        transform=libcamera.Transform(hflip=settings.flip_horizontal, vflip=settings.flip_vertical),
        # Full range: the luma is the gray that nets were trained on.
        colour_space=libcamera.ColorSpace.Sycc(),
        controls=rate | dict(settings.controls),
        buffer_count=settings.buffers or (_BUFFERS if settings.recording is None else _BUFFERS_RECORDED),
        # Take the next frame that comes, not one that has been lying there.
        queue=False,
        # Without a display stream picamera2 needs not hold a buffer back for it.
        display=None,
        encode=None if settings.recording is None else "main",
        **options,
    )


def _rate_hz(settings: CameraSettings) -> float:
    limits_us = settings.controls.get(_RATE)
    if isinstance(limits_us, tuple) and float(limits_us[0]) > 0:
        return 1e6 / float(limits_us[0])
    return settings.fps or _FPS


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
