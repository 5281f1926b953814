"""The frames of video files."""

from __future__ import annotations

from pathlib import Path

import cv2

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
