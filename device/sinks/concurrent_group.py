"""Sinks that are closed concurrently, so that the end of a run takes only as long as the slowest of them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Self

from edgekit.device.accounting import Account
from edgekit.device.detections import FrameResult
from edgekit.device.frame import Frame
from edgekit.device.sink import Sink


class ConcurrentGroup:
    """Several sinks as one, for sinks whose `__exit__` takes a bounded time and raises nothing (network sinks)."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = sinks
        self.accounts: Sequence[Account] = tuple(account for sink in sinks for account in sink.accounts)

    def __enter__(self) -> Self:
        with ExitStack() as entered:
            for sink in self._sinks:
                entered.enter_context(sink)
            entered.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        threads = [threading.Thread(target=sink.__exit__, args=(None, None, None)) for sink in self._sinks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Write the frame to each sink."""
        for sink in self._sinks:
            sink.write(frame, result)
