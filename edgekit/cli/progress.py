"""Progress bars on stderr."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edgekit.cli.common import Output

if TYPE_CHECKING:
    from rich.progress import Progress


def progress_bar(out: Output) -> Progress:
    """Return a rich progress display with time left; it draws only on a terminal and not with -q."""
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
        # Elsewhere than on a terminal rich prints an empty line in its place.
        disable=not console.is_terminal,
    )


def counted(progress: Progress, description: str) -> Callable[[int, int | None], None]:
    """Return a function that shows (done, total or None) as one bar."""
    task = progress.add_task(description, total=None)

    def update(done: int, total: int | None) -> None:
        progress.update(task, completed=done, total=total)

    return update
