"""Memory settings of the process of `edgekit run`."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress
from typing import Self

# mallopt(3). By default glibc has up to eight arenas per processor. Threads that come and go, as with each reconnection
# of a camera, leave free memory in all of them: with six viewers a run grew by 22 MB in half an hour.
_M_ARENA_MAX = -8
_ARENAS = 2


class RunMemory:
    """Limits the arenas of glibc's malloc, and turns Python's garbage collector off until `started`.

    Almost all objects that the start creates are kept. Collections during the start free nothing, and take 1 % of its
    instructions. At the end of the `with` block the collector is on.
    """

    def __enter__(self) -> Self:
        with suppress(AttributeError, OSError):  # another C library
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)
        gc.disable()
        return self

    def __exit__(self, *exception: object) -> None:
        gc.enable()

    def started(self) -> None:
        """Turn the collector on; it never examines the objects that exist now."""
        gc.freeze()
        gc.enable()
