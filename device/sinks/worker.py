"""A sink's thread: when it dies, the run ends with its reason, instead of going on without the sink."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Worker(threading.Thread):
    """A thread that does `work` once started, and whose failure `check` raises in the pipeline's thread."""

    def __init__(self, work: Callable[[], object], name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._work = work
        self._failure: BaseException | None = None

    def run(self) -> None:
        """Do the work."""
        try:
            self._work()
        except BaseException as error:
            self._failure = error

    def check(self) -> None:
        """Raise what ended the work, if something did."""
        if self._failure is not None:
            raise self._failure
