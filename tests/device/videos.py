"""Video files, written and read with OpenCV."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from edgekit.preprocess import ImageU8


def video_frames(path: Path) -> list[ImageU8]:
    """Return all frames of a video that OpenCV decodes."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while (frame := capture.read()[1]) is not None:
        frames.append(frame)
    return frames


def levels(path: Path) -> list[int]:
    """Return the mean brightness of each frame of a video."""
    return [int(frame.mean()) for frame in video_frames(path)]


def times_ms(path: Path) -> list[int]:
    """Return the time of each frame of a video, as OpenCV reads it."""
    capture, times = cv2.VideoCapture(str(path)), []
    while capture.read()[0]:
        times.append(round(capture.get(cv2.CAP_PROP_POS_MSEC)))
    return times


def write_video(path: Path, frames: Iterable[ImageU8], fps: float = 20.0, codec: str = "mp4v") -> Path:
    """Write frames of one size, B, G, R, to a video and return its path."""
    first, *others = frames
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, first.shape[1::-1])
    assert writer.isOpened()
    for frame in (first, *others):
        writer.write(frame)
    writer.release()
    return path


def plain_frames(*colours_bgr: tuple[int, int, int], size_wh: tuple[int, int] = (64, 48)) -> list[ImageU8]:
    """Return one frame per colour."""
    return [np.full((*size_wh[::-1], 3), colour, np.uint8) for colour in colours_bgr]
