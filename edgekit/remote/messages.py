"""Progress and messages of a job on a board: lines of its stderr that the workstation reads. Other lines are noise.

A board's bare Python imports this module too.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable

from edgekit.text import one_line

_PREFIX = "edgekit-job "

Notify = Callable[[str], None]
Progress = Callable[[str, float, float], None]


def report(text: str) -> None:
    """Send a line of text to the workstation."""
    _send(text)


def report_progress(what: str, done: float, total: float | None) -> None:
    """Send the progress of a step; `total` is None if it is unknown."""
    _send(what, round(done, 3), total or 0)


def _send(*values: object) -> None:
    with contextlib.suppress(OSError):  # the connection may be closed
        print(f"{_PREFIX}{json.dumps(values)}", file=sys.stderr, flush=True)


def receiver(notify: Notify, progress: Progress) -> Callable[[str], None]:
    """Return a function that takes a board's lines and calls `notify` and `progress`; texts are printable."""

    def receive(line: str) -> None:
        if not line.startswith(_PREFIX):
            return
        with contextlib.suppress(ValueError, TypeError):
            what, *amounts = json.loads(line.removeprefix(_PREFIX))
            if amounts:
                done, total = map(float, amounts)
                progress(one_line(what), done, total)
            else:
                notify(one_line(what))

    return receive
