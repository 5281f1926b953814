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
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekit.device.frame import Frame, RecordedSource, Source
from edgekit.errors import SourceError
from edgekit.preprocess import ImageU8
from edgekit.report.document import FrameCacheInfo

_MEMORY_FOLDER = Path("/dev/shm")


@dataclass(frozen=True)
class FrameCache:
    """A file with the pixels of frames; `shapes` are their shapes, `fps` is the nominal frame rate of their source."""

    path: Path
    shapes: tuple[tuple[int, ...], ...]
    fps: float | None


class CachedSource(RecordedSource):
    """The frames of a cache, mapped into memory and repeated until the source is stopped.

    All processes that map a cache share its memory.
    """

    frame_count = None
    name = "frames in memory"

    def __init__(self, cache: FrameCache) -> None:
        self.fps = cache.fps
        with cache.path.open("rb") as stream:
            self._mapping = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
        pixels = np.frombuffer(self._mapping, np.uint8)
        ends = list(itertools.accumulate(map(math.prod, cache.shapes)))
        self.frames: list[ImageU8] = [
            flat.reshape(shape)
            for flat, shape in zip(np.split(pixels[: ends[-1]], ends[:-1]), cache.shapes, strict=True)
        ]

    def __iter__(self) -> Iterator[Frame]:
        for sequence, image_bgr in enumerate(itertools.cycle(self.frames)):
            if self._stopped:
                return
            yield Frame(sequence, time.monotonic(), time.time(), image_bgr)

    def unload(self) -> None:
        """Remove the frames from this process's memory; the kernel maps a frame again when it is read."""
        self._mapping.madvise(mmap.MADV_DONTNEED)


@contextmanager
def frame_cache(source: Source, name: str, limit_mib: int) -> Iterator[tuple[FrameCache, FrameCacheInfo]]:
    """Read a source's frames, as many as fit into the limit, into a file; yield it and its description with `name`.

    The file is in memory if there is enough space. It has no name in any folder, so its space is freed however this
    process ends.

    Raises:
        SourceError: The source has no frame.
    """
    shapes: list[tuple[int, ...]] = []
    digest, size_bytes, complete = hashlib.sha256(), 0, True
    in_memory = _MEMORY_FOLDER.is_dir() and shutil.disk_usage(_MEMORY_FOLDER).free > 2 * limit_mib << 20
    with tempfile.TemporaryFile(dir=_MEMORY_FOLDER if in_memory else None) as stream:
        with source:
            for frame in source:
                pixels = np.ascontiguousarray(frame.image_bgr)
                if shapes and size_bytes + pixels.nbytes > limit_mib << 20:
                    complete = False
                    break
                stream.write(pixels.data)
                digest.update(pixels.data)
                shapes.append(pixels.shape)
                size_bytes += pixels.nbytes
        if not shapes:
            raise SourceError(f"source '{source.name}' has no frame")
        stream.flush()
        info = FrameCacheInfo(
            source=name,
            frames=len(shapes),
            complete=complete,
            first_frame_wh=(shapes[0][1], shapes[0][0]),
            memory_mib=round(size_bytes / (1 << 20), 1),
            pixels_sha256=digest.hexdigest(),
        )
        yield FrameCache(Path(f"/proc/{os.getpid()}/fd/{stream.fileno()}"), tuple(shapes), source.fps), info
