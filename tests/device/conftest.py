"""Real media made on the spot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekit.preprocess import ImageU8

WriteClip = Callable[..., Path]


@pytest.fixture
def write_clip(tmp_path: Path) -> WriteClip:
    """Write an .mp4 whose frames are plain grays of the given levels: a frame can be told by its mean."""

    def write(name: str = "clip.mp4", levels: Sequence[int] = range(0, 250, 10), size_wh: tuple[int, int] = (64, 48)):
        path = tmp_path / name
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 20.0, size_wh)
        assert writer.isOpened()
        for level in levels:
            writer.write(np.full((size_wh[1], size_wh[0], 3), level, np.uint8))
        writer.release()
        return path

    return write


@pytest.fixture
def picture() -> ImageU8:
    """Noise that no encoder makes small: cutting its file cuts pixels."""
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


@pytest.fixture
def told() -> list[str]:
    """What a source notified; hand it `told.append`."""
    return []
