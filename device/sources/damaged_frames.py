"""Counts the damaged frames of a video file, whose missing parts a decoder invents.

OpenCV returns such frames without a mark. PyAV has one, so the file is decoded again, without conversion to B, G, R.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def count_damaged_frames(path: Path, is_stopped: Callable[[], bool]) -> int:
    """Return the number of damaged frames of the video at `path`, until `is_stopped()`; 0 without PyAV.

    Frames that cannot be decoded at all are not counted.
    """
    try:
        import av
        import av.logging
    except ImportError:
        return 0
    av.logging.set_level(av.logging.PANIC)  # FFmpeg's messages on stderr
    damaged = 0
    with suppress(av.FFmpegError, IndexError), av.open(str(path)) as container:
        for packet in container.demux(container.streams.video[0]):
            if is_stopped():
                break
            with suppress(av.FFmpegError):
                damaged += sum(frame.is_corrupt for frame in packet.decode())
    return damaged
