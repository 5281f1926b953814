"""Image files of tests."""

from __future__ import annotations

from pathlib import Path

import cv2

from edgekit.preprocess import ImageU8


def write_image(path: Path, image: ImageU8) -> Path:
    """Write a gray or B, G, R image to a file, whose folder is created, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path
