"""Types of the callbacks through which long functions report progress and messages to their caller."""

from __future__ import annotations

from collections.abc import Callable

# Called with a message for the user.
Notify = Callable[[str], None]
# Called with (items done, items in total or None if unknown).
Progress = Callable[[int, int | None], None]
# Called with (name of the stage, items done, items in total or None if unknown).
StageProgress = Callable[[str, int, int | None], None]


def ignore_message(message: str) -> None:
    """Do nothing: the default of `notify` arguments."""


def ignore_progress(stage: str, done: int, total: int | None) -> None:
    """Do nothing: a default of `progress` arguments."""


def of_stage(progress: StageProgress | None, stage: str) -> Progress:
    """Return a callback that reports the progress of one stage; without `progress` it does nothing."""

    def report(done: int, total: int | None) -> None:
        if progress:
            progress(stage, done, total)

    return report
