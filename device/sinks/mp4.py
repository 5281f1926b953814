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

from edgekit.device.sources.settings import EncodedPacket
from edgekit.errors import InputError, StorageError
from edgekit.files import is_at, write_all
from edgekit.install_hint import install_command

if TYPE_CHECKING:
    from edgekit.preprocess import ImageU8

# The header is written with the first fragment, because a camera's first key frame describes the video.
_MUXER_OPTIONS = {"movflags": "frag_keyframe+delay_moov+default_base_moof", "flush_packets": "1"}
_TIME_BASE = Fraction(1, 1_000_000)
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
        reason = "" if _X264 in pyav().codecs_available else f"it has no {_X264}"
    except ImportError as error:
        reason = str(error)
    if reason:
        raise InputError(f"video needs PyAV ({reason}): run {install_command('device')}")


class PacketFile:
    """An MP4 file of coded images. It grows by fragments; the next key frame, or the end, completes a fragment.

    Attributes:
        age_s: 0: the file is new.
    """

    age_s = 0.0

    def __init__(self, path: Path, size_wh: tuple[int, int], fps: float = 30.0) -> None:
        """Create or replace `path`, and its folder.

        Args:
            path: The .mp4 file.
            size_wh: Width and height of the images.
            fps: Nominal frame rate. Players show the last image for one period of it.

        Raises:
            StorageError: The file cannot be created.
        """
        self._av = av = pyav()
        self._path = path
        self._file = _AppendedFile(path)
        # PyAV also raises errors that are no OSError.
        self._errors = (OSError, av.FFmpegError)
        # Number of the images after the last complete fragment.
        self._incomplete = 0
        # The time of the first packet.
        self._first_us: int | None = None
        self._container = av.open(self._file, "w", format="mp4", options=_MUXER_OPTIONS)
        # PyAV describes a stream by an encoder. It stays unused, because the packets are encoded already.
        self._stream = stream = self._container.add_stream("h264", rate=_rate(fps))
        stream.width, stream.height = size_wh
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1

    @property
    def size_bytes(self) -> int:
        """The current size of the file."""
        return self._file.size_bytes

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._file.stream.fileno()

    def write(self, items: Sequence[EncodedPacket]) -> int:
        """Append packets; the first one is a key frame. Returns and raises as `writer.Target`."""
        return sum(self._write(packet) for packet in items)

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

    def _write(self, packet: EncodedPacket) -> int:
        """Append a packet; return the number of images in the fragment that it completes, otherwise 0."""
        if self._first_us is None:
            self._first_us = packet.time_us
        coded = self._av.Packet(packet.data)
        coded.pts = coded.dts = packet.time_us - self._first_us  # equal: no image depends on a later one
        coded.time_base = _TIME_BASE
        coded.is_keyframe = packet.is_key
        coded.stream = self._stream
        try:
            self._container.mux(coded)
            # At a key frame, the muxer has written the fragment of the images before it.
            complete = self._complete_fragment() if packet.is_key and self._incomplete else 0
        except self._errors as error:
            raise self._failure(error) from error
        self._incomplete += 1
        return complete

    def _complete_fragment(self) -> int:
        """Keep what was written up to here in the file; return the number of its images since the last fragment."""
        self._file.keep()
        complete, self._incomplete = self._incomplete, 0
        return complete

    def _failure(self, error: Exception) -> StorageError:
        reason = os.strerror(self._file.errno) if self._file.errno else getattr(error, "strerror", None) or error
        return StorageError(f"cannot write '{self._path}': {reason}")


class H264Encoder:
    """Encodes frames in memory. A key frame begins at least every second; no frame waits in the encoder for long."""

    def __init__(self, size_wh: tuple[int, int], fps: float) -> None:
        """Open the encoder.

        Args:
            size_wh: Width and height of the frames, both even.
            fps: Nominal frame rate.
        """
        self._av = av = pyav()
        self._key_picture = av.video.frame.PictureType.I
        # The time from which a frame becomes a key frame (the first frame does), the time of the first frame, and the
        # latest time stamp.
        self._next_key_s = float("-inf")
        self._first_s: float | None = None
        self._latest_us = -1
        name = _encoder_name(av, size_wh)
        self._context = context = av.CodecContext.create(name, "w")
        context.width, context.height = size_wh
        context.pix_fmt, context.time_base = "yuv420p", _TIME_BASE
        context.framerate = _rate(fps)
        # The run's other threads need the other processors.
        context.thread_count = 1
        context.colorspace = context.color_primaries = context.color_trc = _BT601
        context.color_range = _LIMITED_RANGE
        # Practically no key frames by number: `encode` chooses them by time.
        context.gop_size = 10_000
        if name == _X264:
            context.options = _X264_OPTIONS
        else:
            context.bit_rate = _V4L2_BIT_RATE
        context.open()

    def encode(self, image_bgr: ImageU8, time_s: float) -> list[EncodedPacket]:
        """Encode a frame and return the packets that are ready.

        Args:
            image_bgr: uint8 (H, W, 3) B, G, R.
            time_s: When the frame is shown; the first frame of the video may have any time.

        Raises:
            StorageError: The encoder failed.
        """
        import cv2

        if self._first_s is None:
            self._first_s = time_s
        planes = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2YUV_I420)
        picture = self._av.VideoFrame.from_ndarray(planes, format="yuv420p")
        self._latest_us = max(self._latest_us + 1, round((time_s - self._first_s) * 1e6))  # time stamps must increase
        picture.pts, picture.time_base = self._latest_us, _TIME_BASE
        if time_s >= self._next_key_s:
            picture.pict_type = self._key_picture
            self._next_key_s = time_s + _KEY_FRAME_EVERY_S
        return self._encode(picture)

    def flush(self) -> list[EncodedPacket]:
        """Return the packets that are still in the encoder; no frame may follow. Raises as `encode`."""
        return self._encode(None)

    def _encode(self, picture: Any) -> list[EncodedPacket]:
        try:
            packets = self._context.encode(picture)
        except self._av.FFmpegError as error:
            raise StorageError(f"cannot encode the video: {error}") from error
        return [EncodedPacket(bytes(packet), packet.is_keyframe, packet.pts) for packet in packets]


class H264File:
    """An MP4 file of frames that are encoded here, each shown at its own time.

    Attributes:
        age_s: As of `PacketFile`.
    """

    age_s = 0.0

    def __init__(self, path: Path, size_wh: tuple[int, int], fps: float) -> None:
        """Create or replace `path`, and its folder. Arguments as of `H264Encoder`; raises as `PacketFile`."""
        self._encoder = H264Encoder(size_wh, fps)
        self._file = PacketFile(path, size_wh, fps)

    @property
    def size_bytes(self) -> int:
        """The current size of the file."""
        return self._file.size_bytes

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._file.fileno()

    def append(self, image_bgr: ImageU8, time_s: float) -> int:
        """Encode and append a frame, see `H264Encoder.encode`; return the number of frames that this makes safe.

        These are the frames of a fragment that it completes: they stay playable if the process is killed.

        Raises:
            StorageError: The file cannot be written, or the encoder failed.
        """
        return self._file.write(self._encoder.encode(image_bgr, time_s))

    def close(self) -> int:
        """Write the last fragment; return the number of frames that this makes safe. Raises as `PacketFile.close`."""
        try:
            completed = self._file.write(self._encoder.flush())
        except StorageError:
            with suppress(StorageError):
                self._file.close()
            raise
        return completed + self._file.close()


class _AppendedFile:
    """The file that PyAV writes to.

    Attributes:
        errno: Number of the first error, because PyAV does not report each one. The error itself would keep this file,
            and so the encoder, in memory by its traceback.
    """

    def __init__(self, path: Path) -> None:
        """Create or replace the file, and its folder; raise StorageError if that fails."""
        self._path = path
        self.errno: int | None = None
        self.size_bytes = 0
        # Size up to the last `keep`, which is called after each complete fragment.
        self._kept_bytes = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.stream = path.open("wb", buffering=0)  # unbuffered: what is written outlives the process
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
            elif is_at(self._path, self.stream.fileno()):  # not another file, if this one was renamed or deleted
                self._path.unlink()
        with suppress(OSError):
            self.stream.close()


def _rate(fps: float) -> Fraction:
    return Fraction(min(max(fps, 0.1), _MAX_FPS)).limit_denominator(1001)


def pyav() -> ModuleType:
    """Return PyAV, silenced: FFmpeg's messages on stderr explain nothing that an exception does not."""
    import av
    import av.logging

    av.logging.set_level(av.logging.PANIC)
    return av


def _encoder_name(av: ModuleType, size_wh: tuple[int, int]) -> str:
    """Return the name of the board's encoder if it can be opened for this size, otherwise that of x264."""
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
