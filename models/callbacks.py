"""Types of the callbacks by which long-running functions report progress and messages to their caller."""

from __future__ import annotations

from collections.abc import Callable

# Called with a message for the user.
Notify = Callable[[str], None]
# Called with (items done, items in total or None if unknown).
Progress = Callable[[int, int | None], None]
# Called with (name of the stage, items done, items in total or None if unknown).
StageProgress = Callable[[str, int, int | None], None]


def ignore_message(message: str) -> None:
    """Ignore a message: the default of `notify` arguments, for callers that display no messages."""


def ignore_progress(stage: str, done: int, total: int | None) -> None:
    """Ignore a progress report: a default of `progress` arguments, for callers that display no progress."""


def of_stage(progress: StageProgress | None, stage: str) -> Progress:
    """Return a callback that reports one stage's progress to `progress`; if `progress` is None, it does nothing."""

    def report(done: int, total: int | None) -> None:
        if progress:
            progress(stage, done, total)

    return report
