"""Fragmented MP4 files of H.264 video. The only module that imports PyAV.

A fragment lasts from one key frame to the next. While a file grows, and after its process was killed, it is playable up
to its last complete fragment.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2

from edgekit.device.sources.settings import EncodedPacket
from edgekit.errors import InputError, StorageError
from edgekit.files import is_at, write_all
from edgekit.preprocess import ImageU8

# The header is written with the first fragment, because a camera's first key frame describes the video.
_MUXER_OPTIONS = {"movflags": "frag_keyframe+delay_moov+default_base_moof", "flush_packets": "1"}
_TIME_BASE = Fraction(1, 90_000)
_PACKET_TIME_BASE = Fraction(1, 1_000_000)
_KEY_FRAME_EVERY_S = 1.0
_MAX_FPS = 1000

# The encoder of boards up to the Pi 4, and where the kernel shows it.
_V4L2 = "h264_v4l2m2m"
_V4L2_NODE = Path("/dev/video11")
_X264 = "libx264"
# No frame waits in the encoder, so that a fragment is complete at the next key frame.
_X264_OPTIONS = {"preset": "superfast", "tune": "zerolatency", "crf": "23"}
_V4L2_BIT_RATE = 5_000_000
# ITU-R BT.601 with limited range, which OpenCV's conversion gives. Without it, players assume BT.709 for large frames.
_BT601, _LIMITED_RANGE = 6, 1


def missing_pyav() -> str:
    """Return why PyAV cannot be used, "" if it can."""
    try:
        return "" if _X264 in _pyav().codecs_available else f"it has no {_X264}"
    except ImportError as error:
        return str(error)


class _FragmentedFile:
    """A file that grows by fragments; the next key frame, or the end, completes a fragment.

    Attributes:
        stored: Number of frames in complete fragments.
    """

    def __init__(self, path: Path) -> None:
        """Create or replace `path`, and its folder.

        Raises:
            StorageError: The file cannot be created.
        """
        self._av = av = _pyav()
        self._file = _AppendedFile(path)
        # PyAV also raises errors that are no OSError.
        self._errors = (OSError, av.FFmpegError)
        self._muxed = 0
        self.stored = 0
        self._container = av.open(self._file, "w", format="mp4", options=_MUXER_OPTIONS)

    def size_bytes(self) -> int:
        """Return the current size of the file."""
        return self._file.size_bytes

    def close(self) -> None:
        """Write the last fragment.

        Raises:
            StorageError: The file cannot be written, or was removed.
        """
        try:
            self._container.close()
            if self._muxed:
                self._complete_fragment()
        except self._errors as error:
            raise self._file.failure(error) from error
        finally:
            self._file.close()

    def _add_stream(self, codec: str, size_wh: tuple[int, int], rate: Fraction | int) -> Any:
        """Return the file's only stream."""
        stream = self._container.add_stream(codec, rate=rate)
        stream.width, stream.height = size_wh
        stream.pix_fmt = "yuv420p"
        # The run's other threads need the other processors. For packets, PyAV opens an encoder that encodes nothing.
        stream.codec_context.thread_count = 1
        return stream

    def _mux(self, packet: Any) -> None:
        """Append a packet; raises as `close`."""
        is_key = packet.is_keyframe
        try:
            self._container.mux(packet)
            if is_key and self._muxed:
                self._complete_fragment()
        except self._errors as error:
            raise self._file.failure(error) from error
        self._muxed += 1

    def _complete_fragment(self) -> None:
        self._file.keep()
        self.stored = self._muxed


class PacketFile(_FragmentedFile):
    """An MP4 file of packets that a camera has encoded."""

    def __init__(self, path: Path, size_wh: tuple[int, int]) -> None:
        """Create or replace `path`; raises as `_FragmentedFile`."""
        super().__init__(path)
        self._stream = self._add_stream("h264", size_wh, 30)
        self._first_us: int | None = None

    def put(self, packet: EncodedPacket) -> None:
        """Append a packet; the first one is a key frame.

        Raises:
            StorageError: The file cannot be written, or was removed.
        """
        if self._first_us is None:
            self._first_us = packet.time_us
        coded = self._av.Packet(packet.data)
        coded.pts = coded.dts = packet.time_us - self._first_us
        coded.time_base = _PACKET_TIME_BASE
        coded.is_keyframe = packet.is_key
        coded.stream = self._stream
        self._mux(coded)


class H264File(_FragmentedFile):
    """An MP4 file of frames that are encoded here, each shown at its own time."""

    def __init__(self, path: Path, size_wh: tuple[int, int], fps: float) -> None:
        """Create or replace `path`, and its folder.

        Args:
            path: The .mp4 file.
            size_wh: Width and height of the frames, both even.
            fps: Nominal frame rate; the time that the last frame is shown.

        Raises:
            InputError: The encoder does not support the size.
            StorageError: The file cannot be created.
        """
        super().__init__(path)
        self._path = path
        self._stream = self._encoder(size_wh, min(max(fps, 0.1), _MAX_FPS))
        self._key_picture = self._av.video.frame.PictureType.I
        self._next_key_s = float("-inf")
        self._latest_tick = -1
        self._first_s: float | None = None

    def write(self, image_bgr: ImageU8, time_s: float) -> None:
        """Append a frame, uint8 (H, W, 3) B, G, R; `time_s` counts from any origin and must not decrease.

        Raises:
            StorageError: The file cannot be written, or was removed, or the encoder failed.
        """
        if self._first_s is None:
            self._first_s = time_s
        planes = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2YUV_I420)
        picture = self._av.VideoFrame.from_ndarray(planes, format="yuv420p")
        self._latest_tick = max(self._latest_tick + 1, round((time_s - self._first_s) / _TIME_BASE))
        picture.pts, picture.time_base = self._latest_tick, _TIME_BASE
        if time_s >= self._next_key_s:
            picture.pict_type = self._key_picture
            self._next_key_s = time_s + _KEY_FRAME_EVERY_S
        self._encode(picture)

    def close(self) -> None:
        """Write the last fragment; raises as `write`."""
        try:
            self._encode(None)
        finally:
            super().close()

    def _encode(self, picture: Any) -> None:
        """Append the packets of a frame; None: those that are still in the encoder."""
        try:
            packets = self._stream.encode(picture)
        except self._av.FFmpegError as error:
            raise StorageError(f"cannot encode '{self._path}': {error}") from error
        for packet in packets:
            self._mux(packet)

    def _encoder(self, size_wh: tuple[int, int], fps: float) -> Any:
        name = _encoder_name(self._av, size_wh)
        try:
            stream = self._add_stream(name, size_wh, Fraction(fps).limit_denominator(1001))
            context = stream.codec_context
            context.time_base = _TIME_BASE
            context.colorspace = context.color_primaries = context.color_trc = _BT601
            context.color_range = _LIMITED_RANGE
            # Key frames are chosen by time.
            context.gop_size = 10_000
            if name == _X264:
                context.options = _X264_OPTIONS
            else:
                context.bit_rate = _V4L2_BIT_RATE
            context.open()
        except self._av.FFmpegError as error:
            with suppress(StorageError):
                super().close()
            width, height = size_wh
            raise InputError(f"PyAV cannot encode {width}x{height} pixels as H.264: use smaller frames") from error
        return stream


class _AppendedFile:
    """The file that PyAV writes to. It keeps the number of the first error, because PyAV does not report each one.

    The error itself would keep this file, and so the encoder, in memory by its traceback.
    """

    def __init__(self, path: Path) -> None:
        """Create or replace `path`, and its folder.

        Raises:
            StorageError: The file cannot be created.
        """
        self._path = path
        self._errno: int | None = None
        self.size_bytes = 0
        self._kept_bytes = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = path.open("wb", buffering=0)
        except OSError as error:
            raise self.failure(error) from error

    def write(self, data: bytes) -> int:
        """Append all of `data`."""
        try:
            write_all(self._stream.write, data)
        except OSError as error:
            self._errno = self._errno or error.errno
            raise
        self.size_bytes += len(data)
        return len(data)

    def keep(self) -> None:
        """Keep what was written so far, after a check that all of it was and that the file still has its name.

        Raises:
            OSError: It was not, or the file or its folder was removed or renamed: writing to it gives no error.
        """
        if self._errno is not None:
            raise OSError(self._errno, os.strerror(self._errno))
        if not os.path.samestat(os.fstat(self._stream.fileno()), self._path.stat()):
            raise FileNotFoundError(errno.ENOENT, "another file has taken its name")
        self._kept_bytes = self.size_bytes

    def close(self) -> None:
        """Close the file, without a fragment that an error cut off: players would show some of its frames.

        A file without a complete fragment is removed, so that repeated attempts leave no empty files.
        """
        with suppress(OSError):
            if self._kept_bytes:
                self._stream.truncate(self._kept_bytes)
            elif is_at(self._path, self._stream.fileno()):
                self._path.unlink()
        with suppress(OSError):
            self._stream.close()

    def failure(self, error: Exception) -> StorageError:
        """Return the error for the user."""
        reason = os.strerror(self._errno) if self._errno else getattr(error, "strerror", None) or error
        return StorageError(f"cannot write '{self._path}': {reason}")


def _pyav() -> ModuleType:
    """Return PyAV, silenced: FFmpeg's messages on stderr explain nothing that an exception does not.

    Raises:
        ImportError: It is missing, or a library it needs is.
    """
    import av
    import av.logging

    av.logging.set_level(av.logging.PANIC)
    return av


def _encoder_name(av: ModuleType, size_wh: tuple[int, int]) -> str:
    if not _V4L2_NODE.exists():
        return _X264
    trial = av.CodecContext.create(_V4L2, "w")
    trial.width, trial.height = size_wh
    trial.pix_fmt, trial.time_base = "yuv420p", _TIME_BASE
    try:
        trial.open()
    except av.FFmpegError:
        return _X264
    return _V4L2
