"""The thread of a sink; its failure ends the run."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

# Longest delay until the end of a thread is noticed while its queue is full.
_POLL_S = 0.1


class Worker(threading.Thread):
    """A thread that calls `work`; `check` raises its exception in the pipeline's thread."""

    def __init__(self, work: Callable[[], object], name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._work = work
        self._failure: BaseException | None = None

    def run(self) -> None:
        """Call `work` and keep its exception."""
        try:
            self._work()
        except BaseException as error:
            self._failure = error

    def check(self) -> None:
        """Raise the exception of `work`, if there was one."""
        if self._failure is not None:
            raise self._failure

    def finish(self, items: queue.Queue[Any], timeout_s: float) -> None:
        """Put None, the end, into the queue that `work` reads, and wait for `work`; in all at most `timeout_s`."""
        end_s = time.monotonic() + timeout_s
        # On a disk that stalls the queue stays full: the end of the run must not wait for it.
        while self.is_alive() and (left_s := end_s - time.monotonic()) > 0:
            with suppress(queue.Full):
                items.put(None, timeout=min(left_s, _POLL_S))
                break
        self.join(max(0.0, end_s - time.monotonic()))
