"""The cells of a benchmark and the order in which they are measured.

A cell is one combination of a model, a number of threads and a kind of measurement.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

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
