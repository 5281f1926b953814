"""Progress bars on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from edgekit.cli.output import Output, echo

if TYPE_CHECKING:
    from rich.progress import Progress

# Seconds between two lines where no terminal shows a bar.
LINE_EVERY_S = 60.0


@contextmanager
def reported(out: Output) -> Iterator[dict[str, Any]]:
    """Yield the arguments `progress` and `notify` of a function of the Python API: bars by stage, and printed lines."""
    with progress_bar(out) as bars:
        yield {"progress": by_stage(bars), "notify": out.say}


def is_progress_shown() -> bool:
    """Return whether `progress_bar` would show anything, without importing rich."""
    return sys.stderr.isatty()


def progress_bar(out: Output) -> Progress:
    """Return a rich progress display with the remaining time; it draws only on a terminal and not with -q."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = out.progress_console
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        # Without a terminal rich would print an empty line.
        disable=not console.is_terminal,
    )


def updater(progress: Progress, description: str) -> Callable[[int, int | None], None]:
    """Return a function of (done, total or None) that updates one bar."""
    task = progress.add_task(description, total=None)

    def update(done: int, total: int | None) -> None:
        progress.update(task, completed=done, total=total)

    return update


def by_stage(progress: Progress, clock: Callable[[], float] = time.monotonic) -> Callable[[str, int, int | None], None]:
    """Return a function that shows (stage, done, total or None), with one bar per stage.

    Without a terminal, one line per minute and stage is printed to stderr.
    """
    bars: dict[str, Callable[[int, int | None], None]] = {}
    printed_s: dict[str, float] = {}
    has_lines = progress.disable and not progress.console.quiet

    def update(stage: str, done: int, total: int | None) -> None:
        if stage not in bars:
            bars[stage] = updater(progress, stage)
        bars[stage](done, total)
        if has_lines and (now_s := clock()) - printed_s.setdefault(stage, now_s) >= LINE_EVERY_S:
            printed_s[stage] = now_s
            echo(f"{stage}: {done}{f' of {total}' if total else ''}", err=True)

    return update
