"""Waiting for what another thread or process does: the one loop for it, so that no test waits for ever or in vain."""

from __future__ import annotations

import time
from collections.abc import Callable

# Of a condition that comes at once on a machine with nothing else to do.
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
        # What died may have brought it before.
        assert alive() or holds(), failure()
        assert time.monotonic() < end_s, failure()
        time.sleep(poll_s)
