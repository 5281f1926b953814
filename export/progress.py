"""Progress callback of the functions of this package."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

# Called with (stage, units done, units in all); the last is None where the number is unknown.
Progress: TypeAlias = Callable[[str, int, int | None], None]
# The same for one stage.
StageProgress: TypeAlias = Callable[[int, int | None], None]
# Called with one line that the user should read.
Notify: TypeAlias = Callable[[str], None]


def no_progress(_stage: str, _done: int, _total: int | None) -> None:
    """Ignore progress."""


def no_notify(_line: str) -> None:
    """Ignore a line."""
