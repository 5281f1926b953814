"""A thread whose failure ends the run."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Worker(threading.Thread):
    """A thread that calls `work`; `check` raises its exception in another thread.

    The command line ends the process without waiting for such a thread, which a driver may block.
    """

    def __init__(self, work: Callable[[], object], name: str) -> None:
        super().__init__(name=f"edgekit {name}", daemon=True)
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
