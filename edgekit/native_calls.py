"""Calls into native libraries that may not return, and what ends them: a signal, or a limit of time.

Python runs signal handlers in the main thread, between two Python instructions. While that thread computes inside ONNX
Runtime no handler runs, and a file can make one inference last for ever. Each such call is registered here; a thread of
the command line (`edgekit.cli.native_watch`) cancels calls that outlast a signal.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from edgekit.errors import InputError

# Longest duration of loading a model file and of its first inference. A Pi 3B+ needs a few seconds for large nets.
FIRST_CALL_S = 60.0
# A cancelled call that ends at all ends within this time: ONNX Runtime checks between two nodes.
CANCEL_S = 0.8

_running: set[NativeCall] = set()


# Called with the error of a call that neither ends in time nor can be cancelled. A program sets this to end itself; a
# library must not.
on_stuck: Callable[[InputError], None] = lambda _: None  # noqa: E731


class NativeCall:
    """A call into a native library, for the duration of a `with` block.

    Raises at the end of the block:
        KeyboardInterrupt: The call failed because a signal cancelled it.
        InputError: The call failed because `limit_s` had passed.
    """

    __slots__ = ("__weakref__", "_cancel", "_limit", "_limit_s", "_subject", "cancelled", "in_main_thread", "started_s")

    def __init__(self, subject: str, cancel: Callable[[], None], limit_s: float | None = None) -> None:
        """`subject` is the beginning of the error message; `cancel` is called in another thread."""
        self._subject = subject
        self._cancel = cancel
        self._limit_s = limit_s
        self._limit: threading.Timer | None = None
        self.cancelled: BaseException | None = None

    def __enter__(self) -> Self:
        self.in_main_thread = threading.current_thread() is threading.main_thread()
        self.started_s = time.monotonic()
        _running.add(self)
        if self._limit_s is not None:
            self._limit = threading.Timer(self._limit_s, self._expire)
            self._limit.daemon = True
            try:
                self._limit.start()
            except RuntimeError:  # the system allows no more threads: the call has no limit
                self._limit = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _running.discard(self)
        if self._limit is not None:
            self._limit.cancel()
            if self.cancelled is None:
                self._limit.join()  # no thread is left when the caller goes on
        if isinstance(error, Exception) and self.cancelled is not None:
            raise self.cancelled from error

    def cancel(self, reason: BaseException) -> None:
        """Make the library end the call, whose block then raises `reason`."""
        self.cancelled = reason
        self._cancel()

    def _expire(self) -> None:
        error = InputError(f"{self._subject} takes more than {self._limit_s:g} s: use another file")
        self.cancel(error)
        time.sleep(CANCEL_S)
        if self in _running:
            on_stuck(error)


def running_since(before_s: float) -> list[NativeCall]:
    """Return the running calls that began before a time on the monotonic clock."""
    return [call for call in list(_running) if call.started_s < before_s]


def any_running() -> bool:
    """Return whether a call is running; the interpreter's own exit would destroy what it uses."""
    return bool(_running)
