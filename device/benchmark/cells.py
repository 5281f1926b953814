"""What a benchmark measures, cell by cell, and in which order.

A cell is one model on one engine with one number of threads doing one kind of work.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from edgekit.device.engines.engine import Engine, engine_of
from edgekit.errors import InputError

Kind: TypeAlias = Literal["inference", "classifier", "pipeline", "camera"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# Those whose iteration is a frame with its faces.
FRAME_KINDS: tuple[Kind, ...] = ("pipeline", "camera")


@dataclass(frozen=True)
class Cell:
    """One thing to measure.

    Kinds: "inference" is the net alone, its input prepared; "classifier" cuts and prepares the faces too and ends with
    probabilities; "pipeline" takes frames from memory and also finds the faces; "camera" does so with a camera's newest
    frames, waiting for them included.
    """

    model: str
    path: Path
    intra_op_threads: int
    kind: Kind

    @property
    def engine(self) -> Engine:
        """The engine that runs the model."""
        return engine_of(self.path)


def plan_cells(models: Sequence[tuple[str, Path]], thread_counts: Sequence[int], kinds: Sequence[Kind]) -> list[Cell]:
    """Return every combination once.

    Raises:
        InputError: A model or a thread count is given twice, or a thread count is below 1.
    """
    names = [name for name, _ in models]
    for what, values in (("model", names), ("thread count", thread_counts)):
        twice = {str(value) for value in values if list(values).count(value) > 1}
        if twice:
            raise InputError(f"{what} given twice: {', '.join(sorted(twice))}")
    if min(thread_counts) < 1:
        raise InputError(f"thread count {min(thread_counts)} is below 1")
    return [Cell(name, path, threads, kind) for name, path in models for threads in thread_counts for kind in kinds]


def plan_rounds(cells: Sequence[Cell], rounds: int, seed: int) -> list[Cell]:
    """Return the cells `rounds` times, each round in an order of its own that the seed decides.

    A machine that gets hot or busy for a while then slows one process of every cell, not every process of one.
    """
    random_ = random.Random(seed)  # noqa: S311 (an order, not a secret)
    return [cell for _ in range(rounds) for cell in random_.sample(list(cells), len(cells))]
