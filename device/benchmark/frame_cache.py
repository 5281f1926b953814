"""Frames held in memory, so that a benchmark measures no decoding."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from edgekit.device.sources import Source
from edgekit.errors import SourceError
from edgekit.preprocess import ImageU8


@dataclass(frozen=True)
class FrameCache:
    """Frames, and what a report says of them; `sha256` is of their pixels.

    `complete` is False where the source has more frames than the limit let in.
    """

    name: str
    frames: tuple[ImageU8, ...]
    complete: bool
    mib: float
    sha256: str


def load_frame_cache(source: Source, limit_mib: int) -> FrameCache:
    """Return a source's frames, as many as fit into the limit; the source is closed.

    Raises:
        SourceError: It gives no frame.
    """
    frames: list[ImageU8] = []
    digest = hashlib.sha256()
    size_bytes = 0
    complete = True
    with source:
        for frame in source:
            if frames and size_bytes + frame.image_bgr.nbytes > limit_mib << 20:
                complete = False
                break
            frames.append(frame.image_bgr)
            size_bytes += frame.image_bgr.nbytes
            digest.update(np.ascontiguousarray(frame.image_bgr).data)
    if not frames:
        raise SourceError(f"source '{source.name}' gave no frame")
    return FrameCache(source.name, tuple(frames), complete, size_bytes / (1 << 20), digest.hexdigest())


def save_frame_cache(clip: FrameCache, stream: BinaryIO) -> None:
    """Write the frames' pixels and what is said of them, for other processes to map into their memory."""
    index = {
        "name": clip.name,
        "complete": clip.complete,
        "mib": clip.mib,
        "sha256": clip.sha256,
        "shapes": [frame.shape for frame in clip.frames],
    }
    stream.write(json.dumps(index).encode() + b"\n")
    for frame in clip.frames:
        stream.write(np.ascontiguousarray(frame).data)
    stream.flush()


def map_clip(path: Path) -> FrameCache:
    """Return the clip that `save_frame_cache` wrote; its pixels stay in the file's pages, which all readers share."""
    with path.open("rb") as stream:
        index = json.loads(stream.readline())
        offset = stream.tell()
    pixels = np.memmap(path, np.uint8, "c")
    frames = []
    for shape in index["shapes"]:
        size = math.prod(shape)
        frames.append(np.asarray(pixels[offset : offset + size]).reshape(shape))
        offset += size
    return FrameCache(index["name"], tuple(frames), index["complete"], index["mib"], index["sha256"])
