"""Sinks that are closed concurrently, so that the end of a run takes only as long as the slowest of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Self

from edgekit.device.detections import FrameResult
from edgekit.device.frame import Frame
from edgekit.device.sink import Sink, accounts_of
from edgekit.device.sinks.worker import Worker


class ConcurrentGroup(Sink):
    """Several sinks as one, for sinks that may be closed by any thread."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = sinks
        self.accounts = accounts_of(sinks)

    def __enter__(self) -> Self:
        with ExitStack() as entered:
            for sink in self._sinks:
                entered.enter_context(sink)
            entered.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        """Close all sinks.

        Raises:
            Exception: The first one that a sink raises.
        """
        threads = [Worker(partial(sink.__exit__, *exception), "close") for sink in self._sinks]
        for thread in threads:
            try:
                thread.start()
            except RuntimeError:  # the system allows no more threads
                thread.run()
        for thread in threads:
            if thread.is_alive():
                thread.join()
        for thread in threads:
            thread.check()

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Write the frame to each sink."""
        for sink in self._sinks:
            sink.write(frame, result)
