"""StageProgress bars for functions of `edgekit.export` that report (stage, done, total)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.cli.progress import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.progress import StageProgress as Bars

    from edgekit.models.callbacks import StageProgress


def by_stage(bars: Bars) -> StageProgress:
    """Return a callback that shows one bar per stage."""
    updates: dict[str, Callable[[int, int | None], None]] = {}

    def update(stage: str, done: int, total: int | None) -> None:
        if stage not in updates:
            updates[stage] = counted(bars, stage)
        updates[stage](done, total)

    return update
