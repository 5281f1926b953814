"""Decoded frames in memory, shared with worker processes, so that a benchmark does not measure decoding."""

from __future__ import annotations

import hashlib
import itertools
import math
import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np

from edgekit.device.frame import Frame, RecordedSource, Source
from edgekit.errors import SourceError
from edgekit.preprocess import ImageU8

_MEMORY_FOLDER = Path("/dev/shm")


@dataclass(frozen=True)
class FrameCache:
    """The first frames of a source; `sha256` is the hash of their pixels, `fps` the nominal frame rate or None.

    `complete` is False if the source has more frames than fit into the limit. `mapping` is the file that the frames are
    mapped from, if they are.
    """

    name: str
    frames: tuple[ImageU8, ...]
    complete: bool
    mib: float
    sha256: str
    fps: float | None = None
    mapping: mmap.mmap | None = field(default=None, compare=False)

    def unload(self) -> None:
        """Remove mapped frames from this process's memory; the kernel maps a frame again when it is read."""
        if self.mapping is not None:
            self.mapping.madvise(mmap.MADV_DONTNEED)


class CachedSource(RecordedSource):
    """The frames of a cache, repeated until the source is stopped."""

    frame_count = None

    def __init__(self, cache: FrameCache) -> None:
        self.name = cache.name
        self.fps = cache.fps
        self._frames = cache.frames

    def __iter__(self) -> Iterator[Frame]:
        for sequence, image_bgr in enumerate(itertools.cycle(self._frames)):
            if self._stopped:
                return
            yield Frame(sequence, time.monotonic(), time.time(), image_bgr)


def load_frame_cache(source: Source, limit_mib: int) -> FrameCache:
    """Return a source's frames, as many as fit into the limit, and close the source.

    Raises:
        SourceError: The source has no frame.
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
        raise SourceError(f"source '{source.name}' has no frame")
    return FrameCache(source.name, tuple(frames), complete, size_bytes / (1 << 20), digest.hexdigest(), source.fps)


@contextmanager
def shared_frame_cache(cache: FrameCache) -> Iterator[Path]:
    """Write a cache to a file for other processes to map with `map_frame_cache`; yield the file's path.

    The file is in memory if there is enough space. It has no name in any folder, so its space is freed however this
    process ends.
    """
    try:
        in_memory = shutil.disk_usage(_MEMORY_FOLDER).free > 2 * cache.mib * (1 << 20)
    except OSError:
        in_memory = False
    with tempfile.TemporaryFile(dir=_MEMORY_FOLDER if in_memory else None) as stream:
        save_frame_cache(cache, stream)
        yield Path(f"/proc/{os.getpid()}/fd/{stream.fileno()}")


def save_frame_cache(cache: FrameCache, stream: BinaryIO) -> None:
    """Write a cache: a line of JSON with everything but the pixels, then the pixels."""
    shapes = [frame.shape for frame in cache.frames]
    index = _Index(cache.name, cache.complete, cache.mib, cache.sha256, cache.fps, shapes)
    stream.write(msgspec.json.encode(index) + b"\n")
    for frame in cache.frames:
        stream.write(np.ascontiguousarray(frame).data)
    stream.flush()


def map_frame_cache(path: Path) -> FrameCache:
    """Memory-map the cache that `save_frame_cache` wrote; all processes that read it share its memory."""
    with path.open("rb") as stream:
        index = msgspec.json.decode(stream.readline(), type=_Index)
        offset = stream.tell()
        mapping = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
    pixels = np.frombuffer(mapping, np.uint8)
    frames = []
    for shape in index.shapes:
        size = math.prod(shape)
        frames.append(pixels[offset : offset + size].reshape(shape))
        offset += size
    return FrameCache(index.name, tuple(frames), index.complete, index.mib, index.sha256, index.fps, mapping)


class _Index(msgspec.Struct):
    name: str
    complete: bool
    mib: float
    sha256: str
    fps: float | None
    shapes: list[tuple[int, ...]]
