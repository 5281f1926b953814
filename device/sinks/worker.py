"""The thread of a sink; its failure ends the run."""

from __future__ import annotations

import threading
from collections.abc import Callable


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
