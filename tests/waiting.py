"""The wait for another thread or process: the one loop for it, with a time limit and a check that it is alive."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

# The limit for a condition that holds within moments on an idle machine.
PATIENCE_S = 60


def wait_until(
    holds: Callable[[], object],
    *,
    alive: Callable[[], object] = lambda: True,
    failure: Callable[[], object] = lambda: "it did not happen",
    patience_s: float = PATIENCE_S,
    poll_s: float = 0.01,
) -> None:
    """Return once `holds()`; fail with `failure()` after `patience_s`, or when `alive()` is false."""
    end_s = time.monotonic() + patience_s
    while not holds():
        # The condition can become true just before the other side dies.
        assert alive() or holds(), failure()
        assert time.monotonic() < end_s, failure()
        time.sleep(poll_s)


def has_ended(pid: int) -> bool:
    """Return whether a killed process has ended: it does not exist, or it is a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
