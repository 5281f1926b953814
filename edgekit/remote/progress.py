"""Progress as lines of text: a board's edgekit writes them to stderr when told to, the workstation reads them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from edgekit.text import one_line

# Set to 1, commands write lines in place of bars.
PROGRESS_VARIABLE = "EDGEKIT_PROGRESS_LINES"
_MARK = "edgekit-progress "
_MAX_WHAT = 100


@dataclass(frozen=True)
class Progressed:
    """How far something is."""

    what: str
    done: float
    total: float


def progress_line(what: str, done: float, total: float | None) -> str:
    """Return the line that says how far something is."""
    return _MARK + json.dumps([what, round(done, 3), total or 0])


def read_progress(line: str) -> Progressed | None:
    """Return what a line says, None for any other line; nothing in it is trusted."""
    if not line.startswith(_MARK):
        return None
    try:
        what, done, total = json.loads(line.removeprefix(_MARK))
        done, total = float(done), float(total)
    except (ValueError, TypeError, RecursionError, OverflowError):
        return None
    if not isinstance(what, str) or not (math.isfinite(done) and math.isfinite(total)):
        return None
    return Progressed(one_line(what)[:_MAX_WHAT], min(max(done, 0.0), 1e9), min(max(total, 0.0), 1e9))
