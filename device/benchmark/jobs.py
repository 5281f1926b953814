"""The cells of a benchmark, the order in which they are measured, and the jobs and frames of the worker processes.

A cell is one combination of a model, a number of threads and a kind of measurement.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import mmap
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from edgekit.device.detection import Detector, create_detector
from edgekit.device.engines.session import available_processors
from edgekit.device.frame import Frame, RecordedSource, Source
from edgekit.errors import InputError, SourceError
from edgekit.preprocess import ImageU8
from edgekit.report.document import KINDS, FrameCacheInfo, Kind
from edgekit.text import counted

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
        """Map the cache's file; the frames are views of it."""
        self.fps = cache.fps
        with cache.path.open("rb") as stream:
            # Whoever writes into a frame changes this process's copy, not the file.
            self._mapping = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
        pixels = np.frombuffer(self._mapping, np.uint8)  # of all frames, one after the other
        self.frames: list[ImageU8] = []
        start = 0
        for shape in cache.shapes:
            size = math.prod(shape)
            self.frames.append(pixels[start : start + size].reshape(shape))
            start += size

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
    """Write the first frames of a source to a file of at most `limit_mib`, and yield the file and its description.

    `name` is the source's name in the description. The file is in memory if it uses at most half of the space there.
    It has no name in any folder, so its space is freed however this process ends.

    Raises:
        SourceError: The source has no frame.
    """
    shapes: list[tuple[int, ...]] = []  # one per frame in the file
    size_bytes, digest = 0, hashlib.sha256()  # of all pixels
    complete = True  # whether all frames of the source are in the file
    limit_bytes = limit_mib * 2**20
    in_memory = _MEMORY_FOLDER.is_dir() and shutil.disk_usage(_MEMORY_FOLDER).free > 2 * limit_bytes
    with tempfile.TemporaryFile(dir=_MEMORY_FOLDER if in_memory else None) as stream:
        with source:
            for frame in source:
                pixels = np.ascontiguousarray(frame.image_bgr)
                # The first frame is written in any case.
                if shapes and size_bytes + pixels.nbytes > limit_bytes:
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
            memory_mib=round(size_bytes / 2**20, 1),
            pixels_sha256=digest.hexdigest(),
        )
        # Under this name the processes that measure open the file.
        yield FrameCache(Path(f"/proc/{os.getpid()}/fd/{stream.fileno()}"), tuple(shapes), source.fps), info


T = TypeVar("T")


@dataclass(frozen=True)
class Cell:
    """A model, a number of threads and a kind of measurement.

    Kinds: "net" is one inference on a prepared input; "frame" is one frame from memory through detection and
    classification, in one thread and without tracking; "run" is the loop of `edgekit run` (threads, detection schedule,
    tracker, smoothing) over frames from memory.

    `threads` is the number of threads within the classifier and within the detector. A run may have None and then uses
    the threads that `edgekit run` plans.
    """

    model: str
    path: Path
    threads: int | None
    kind: Kind

    @property
    def name(self) -> str:
        """The name of the cell in messages."""
        return f"{self.kind}, {self.model}" + ("" if self.threads is None else f", {counted(self.threads, 'thread')}")


@dataclass(frozen=True)
class DetectorChoice:
    """The detector for the kinds "frame" and "run"."""

    name: str
    model_path: Path | None
    input_size_px: int | None

    def create(self, intra_op_threads: int | None = None, notify: Callable[[str], None] = lambda _: None) -> Detector:
        """Return the detector; if it is not available, the one that replaces it, with one line for `notify`."""
        return create_detector(
            str(self.model_path or self.name),  # a detector's name, or YuNet's file
            input_size_px=self.input_size_px,
            intra_op_threads=intra_op_threads,
            notify=notify,
        )


@dataclass(frozen=True)
class Job:
    """A cell and how to measure it.

    Attributes:
        cell: What to measure.
        seconds: Minimum time of measured work, and maximum time of the warm-up.
        min_iterations: Minimum number of measured iterations.
        batch: Faces or images per iteration of "net".
        cache: The frames of the kinds "frame" and "run".
        detector: Their detector; None if the model classifies whole images.
    """

    cell: Cell
    seconds: float
    min_iterations: int
    batch: int
    cache: FrameCache | None = None
    detector: DetectorChoice | None = None

    def make_detector(self, intra_op_threads: int) -> Detector:
        """Return the detector."""
        assert self.detector is not None
        return self.detector.create(intra_op_threads, lambda _: None)

    def to_json(self) -> bytes:
        """Return the job for a worker's stdin."""
        return msgspec.json.encode(self, enc_hook=str)

    @classmethod
    def from_json(cls, content: bytes) -> Job:
        """Return the job that `to_json` wrote."""
        # The hook makes a Path of its text.
        return msgspec.json.decode(content, type=cls, dec_hook=lambda kind, text: kind(text))


def plan_cells(
    models: Sequence[tuple[str, Path]], thread_counts: Sequence[int] | None, kinds: Sequence[Kind]
) -> list[Cell]:
    """Return one cell for each combination of model, kind and thread count.

    Args:
        models: Name and file of each model.
        thread_counts: Numbers of threads. None: 1 and the number of processors; for the kind "run" instead one cell
            per model, with the threads that `edgekit run` plans.
        kinds: Kinds of measurements.

    Raises:
        InputError: There is no model or kind, a model, kind or thread count is given twice, a kind is unknown, or a
            thread count is below 1.
    """
    counts = default_thread_counts() if thread_counts is None else thread_counts
    for what, values in (("model", [name for name, _ in models]), ("kind", kinds), ("thread count", counts)):
        if not values or len(set(values)) < len(values):
            raise InputError(f"give at least one {what}, and none twice")
    if unknown := set(kinds) - set(KINDS):
        raise InputError(f"kind '{unknown.pop()}' is not known: choose from {', '.join(KINDS)}")
    if min(counts) < 1:
        raise InputError(f"thread count {min(counts)} is below 1")
    cells = []
    for (name, path), kind in itertools.product(models, kinds):
        if kind == "run" and thread_counts is None:
            cells.append(Cell(name, path, threads=None, kind=kind))
        else:
            cells += [Cell(name, path, threads, kind) for threads in counts]
    return cells


def default_thread_counts() -> tuple[int, ...]:
    """Return the default numbers of threads: 1 and the number of processors."""
    return tuple(sorted({1, available_processors()}))


def plan_rounds(cells: Sequence[T], rounds: int, seed: int) -> list[T]:
    """Return the cells (or their jobs) shuffled, `rounds` times, each time in another order that the seed determines.

    A short period in which the machine is hot or busy then slows one process of each cell, not all of one cell. Each
    cell is measured by `rounds` processes.
    """
    random_ = random.Random(seed)  # noqa: S311 (an order, not a secret)
    return [cell for _round in range(rounds) for cell in random_.sample(list(cells), len(cells))]
