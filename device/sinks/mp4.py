"""Fragmented MP4 files of H.264 video. The only module that imports PyAV.

A fragment lasts from one key frame to the next. While a file grows, and after its process was killed, it is playable up
to its last complete fragment.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from edgekit.errors import InputError, StorageError
from edgekit.files import is_at, write_all
from edgekit.install_hint import install_command

if TYPE_CHECKING:
    from edgekit.device.sources.settings import EncodedPacket
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


def require_pyav() -> None:
    """Check that PyAV can be used.

    Raises:
        InputError: It is missing, or cannot encode H.264.
    """
    try:
        reason = "" if _X264 in _pyav().codecs_available else f"it has no {_X264}"
    except ImportError as error:
        reason = str(error)
    if reason:
        raise InputError(
            f"video needs PyAV ({reason}): run {install_command('device')}, or sudo apt install python3-av"
        )


class _FragmentedFile:
    """A file that grows by fragments; the next key frame, or the end, completes a fragment.

    Attributes:
        age_s: 0: the file is new.
    """

    age_s = 0.0

    def __init__(self, path: Path) -> None:
        """Create or replace `path`, and its folder.

        Raises:
            StorageError: The file cannot be created.
        """
        self._av = av = _pyav()
        self._path = path
        self._file = _AppendedFile(path)
        # PyAV also raises errors that are no OSError.
        self._errors = (OSError, av.FFmpegError)
        # Frames after the last complete fragment.
        self._incomplete = 0
        self._container = av.open(self._file, "w", format="mp4", options=_MUXER_OPTIONS)

    @property
    def size_bytes(self) -> int:
        """The current size of the file."""
        return self._file.size_bytes

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._file.stream.fileno()

    def close(self) -> int:
        """Write the last fragment; return its number of frames.

        Raises:
            StorageError: The file cannot be written.
        """
        try:
            self._container.close()
            return self._complete_fragment() if self._incomplete else 0
        except self._errors as error:
            raise self._failure(error) from error
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

    def _mux(self, packet: Any) -> int:
        """Append a packet; return the number of frames whose fragment it completes. Raises as `close`."""
        is_key = packet.is_keyframe
        try:
            self._container.mux(packet)
            complete = self._complete_fragment() if is_key and self._incomplete else 0
        except self._errors as error:
            raise self._failure(error) from error
        self._incomplete += 1
        return complete

    def _complete_fragment(self) -> int:
        self._file.keep()
        complete, self._incomplete = self._incomplete, 0
        return complete

    def _failure(self, error: Exception) -> StorageError:
        reason = os.strerror(self._file.errno) if self._file.errno else getattr(error, "strerror", None) or error
        return StorageError(f"cannot write '{self._path}': {reason}")


class PacketFile(_FragmentedFile):
    """An MP4 file of packets that a camera has encoded."""

    def __init__(self, path: Path, size_wh: tuple[int, int]) -> None:
        """Create or replace `path`; raises as `_FragmentedFile`."""
        super().__init__(path)
        self._stream = self._add_stream("h264", size_wh, 30)
        self._first_us: int | None = None

    def write(self, items: Sequence[EncodedPacket]) -> int:
        """Append packets; the first one is a key frame. Returns and raises as `writer.Target`."""
        return sum(self._write(packet) for packet in items)

    def _write(self, packet: EncodedPacket) -> int:
        if self._first_us is None:
            self._first_us = packet.time_us
        coded = self._av.Packet(packet.data)
        coded.pts = coded.dts = packet.time_us - self._first_us
        coded.time_base = _PACKET_TIME_BASE
        coded.is_keyframe = packet.is_key
        coded.stream = self._stream
        return self._mux(coded)


class H264File(_FragmentedFile):
    """An MP4 file of frames that are encoded here, each shown at its own time."""

    def __init__(self, path: Path, size_wh: tuple[int, int], fps: float) -> None:
        """Create or replace `path`, and its folder.

        Args:
            path: The .mp4 file.
            size_wh: Width and height of the frames, both even.
            fps: Nominal frame rate; the time that the last frame is shown.

        Raises:
            StorageError: The file cannot be created.
        """
        super().__init__(path)
        self._stream = self._encoder(size_wh, min(max(fps, 0.1), _MAX_FPS))
        self._key_picture = self._av.video.frame.PictureType.I
        self._next_key_s = float("-inf")
        self._latest_tick = -1
        self._first_s: float | None = None

    def append(self, image_bgr: ImageU8, time_s: float) -> int:
        """Append a frame, uint8 (H, W, 3) B, G, R; `time_s` counts from any origin. Returns as `writer.Target`.

        Raises:
            StorageError: The file cannot be written, or the encoder failed.
        """
        import cv2

        if self._first_s is None:
            self._first_s = time_s
        planes = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2YUV_I420)
        picture = self._av.VideoFrame.from_ndarray(planes, format="yuv420p")
        self._latest_tick = max(self._latest_tick + 1, round((time_s - self._first_s) / _TIME_BASE))
        picture.pts, picture.time_base = self._latest_tick, _TIME_BASE
        if time_s >= self._next_key_s:
            picture.pict_type = self._key_picture
            self._next_key_s = time_s + _KEY_FRAME_EVERY_S
        return self._encode(picture)

    def close(self) -> int:
        """Write the last fragment; returns and raises as `_FragmentedFile.close`."""
        try:
            complete = self._encode(None)
        except StorageError:
            with suppress(StorageError):
                super().close()
            raise
        return complete + super().close()

    def _encode(self, picture: Any) -> int:
        """Append the packets of a frame; None: those that are still in the encoder."""
        try:
            packets = self._stream.encode(picture)
        except self._av.FFmpegError as error:
            raise StorageError(f"cannot encode '{self._path}': {error}") from error
        return sum(self._mux(packet) for packet in packets)

    def _encoder(self, size_wh: tuple[int, int], fps: float) -> Any:
        name = _encoder_name(self._av, size_wh)
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
        return stream


class _AppendedFile:
    """The file that PyAV writes to.

    Attributes:
        errno: Number of the first error, because PyAV does not report each one. The error itself would keep this file,
            and so the encoder, in memory by its traceback.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.errno: int | None = None
        self.size_bytes = 0
        self._kept_bytes = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.stream = path.open("wb", buffering=0)
        except OSError as error:
            raise StorageError(f"cannot write '{path}': {error.strerror or error}") from error

    def write(self, data: bytes) -> int:
        """Append all of `data`."""
        try:
            write_all(self.stream.write, data)
        except OSError as error:
            self.errno = self.errno or error.errno
            raise
        self.size_bytes += len(data)
        return len(data)

    def keep(self) -> None:
        """Keep what was written so far; raises OSError if not all of it was."""
        if self.errno is not None:
            raise OSError(self.errno, os.strerror(self.errno))
        self._kept_bytes = self.size_bytes

    def close(self) -> None:
        """Close the file, without a fragment that an error cut off: players would show some of its frames.

        A file without a complete fragment is removed, so that repeated attempts leave no empty files.
        """
        with suppress(OSError):
            if self._kept_bytes:
                self.stream.truncate(self._kept_bytes)
            elif is_at(self._path, self.stream.fileno()):
                self._path.unlink()
        with suppress(OSError):
            self.stream.close()


def _pyav() -> ModuleType:
    """Return PyAV, silenced: FFmpeg's messages on stderr explain nothing that an exception does not."""
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
