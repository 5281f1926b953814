"""Progress as lines of text: the edgekit on a board writes them to stderr, the workstation reads them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from edgekit.text import one_line

# If this variable is 1, commands write progress lines instead of drawing bars.
PROGRESS_VARIABLE = "EDGEKIT_PROGRESS_LINES"
_PREFIX = "edgekit-progress "
_MAX_WHAT_CHARS = 100


@dataclass(frozen=True)
class Progress:
    """Progress of one step: `done` of `total`; `total` is 0 if it is unknown."""

    what: str
    done: float
    total: float


def progress_line(what: str, done: float, total: float | None) -> str:
    """Return progress as one line of text."""
    return _PREFIX + json.dumps([what, round(done, 3), total or 0])


def read_progress(line: str) -> Progress | None:
    """Return the progress in a line from a board, None for any other line; values are bounded and printable."""
    if not line.startswith(_PREFIX):
        return None
    try:
        what, done, total = json.loads(line.removeprefix(_PREFIX))
        done, total = float(done), float(total)
    except (ValueError, TypeError, RecursionError, OverflowError):
        return None
    if not isinstance(what, str) or not (math.isfinite(done) and math.isfinite(total)):
        return None
    return Progress(one_line(what)[:_MAX_WHAT_CHARS], min(max(done, 0.0), 1e9), min(max(total, 0.0), 1e9))
