"""The cells of a benchmark, the order in which they are measured, and the jobs of the worker processes.

A cell is one combination of a model, a number of threads and a kind of measurement.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from edgekit.device.benchmark.frame_cache import FrameCache
from edgekit.device.detection import Detector, create_detector
from edgekit.device.engines.session import available_processors
from edgekit.errors import InputError
from edgekit.report.document import KINDS, Kind
from edgekit.text import counted

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
        """Return the detector, or the one that replaces it, with one line for `notify`."""
        return create_detector(
            self.name,
            model_path=self.model_path,
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
        return msgspec.json.decode(content, type=cls, dec_hook=lambda kind, text: kind(text))


def plan_cells(
    models: Sequence[tuple[str, Path]], thread_counts: Sequence[int] | None, kinds: Sequence[Kind]
) -> list[Cell]:
    """Return one cell for each combination of model, kind and thread count.

    Args:
        models: Name and file of each model.
        thread_counts: Numbers of threads. None: 1 and the number of processors, and one run per model with the threads
            of `edgekit run`.
        kinds: Kinds of measurements.

    Raises:
        InputError: There is no model or kind, a model, kind or thread count is given twice, a kind is unknown, or a
            thread count is below 1.
    """
    counts = default_thread_counts() if thread_counts is None else thread_counts
    given: dict[str, Sequence[object]] = {"model": [name for name, _ in models], "kind": kinds, "thread count": counts}
    for what, values in given.items():
        if not values:
            raise InputError(f"no {what} is given: give at least one")
        if twice := next((value for value in values if values.count(value) > 1), None):
            raise InputError(f"{what} given twice: {twice}")
    if unknown := set(kinds) - set(KINDS):
        raise InputError(f"kind '{unknown.pop()}' is not known: choose from {', '.join(KINDS)}")
    if min(counts) < 1:
        raise InputError(f"thread count {min(counts)} is below 1")
    return [
        Cell(name, path, threads, kind)
        for name, path in models
        for kind in kinds
        for threads in ((None,) if kind == "run" and thread_counts is None else counts)
    ]


def default_thread_counts() -> tuple[int, ...]:
    """Return the default numbers of threads: 1 and the number of processors."""
    return tuple(sorted({1, available_processors()}))


def plan_rounds(cells: Sequence[T], rounds: int, seed: int) -> list[T]:
    """Return the cells, or their jobs, `rounds` times, each round in its own order that the seed determines.

    A short period in which the machine is hot or busy then slows one process of each cell, not all of one cell.
    """
    random_ = random.Random(seed)  # noqa: S311 (an order, not a secret)
    return [cell for _ in range(rounds) for cell in random_.sample(list(cells), len(cells))]
