"""Free memory that malloc holds is returned to the system once per minute during a run."""

from __future__ import annotations

import ctypes
from contextlib import suppress

from edgekit.device.health.sampler import Health

# With one sample per second: once per minute. On a PC, a trim of a heap with little free memory takes 2 ms.
_TRIM_EVERY = 60


class HeapTrimmer:
    """Watcher of health samples that calls glibc's malloc_trim(3) with every 60th sample.

    Connections, recordings and viewers that come and go leave free pieces between the allocated ones. Without a trim,
    the process keeps them, and its memory grows over hours.
    """

    def __init__(self) -> None:
        self._samples = 0

    def __call__(self, _sample: Health) -> None:
        """Count a sample, and trim when it is time."""
        self._samples += 1
        if self._samples % _TRIM_EVERY == 0:
            with suppress(AttributeError, OSError):  # another C library
                ctypes.CDLL(None).malloc_trim(0)
