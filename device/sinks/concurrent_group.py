"""Sinks that take leave at the same time: the end of a run waits for the slowest of them, not for all in turn."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Self

from edgekit.device.detections import FrameResult
from edgekit.device.frame import Frame
from edgekit.device.sink import Sink


class Together:
    """Several sinks as one; for those whose leaving takes a bounded time and cannot fail, as over a network."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = sinks

    def __enter__(self) -> Self:
        with ExitStack() as entered:
            for sink in self._sinks:
                entered.enter_context(sink)
            entered.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        leaving = [threading.Thread(target=sink.__exit__, args=(None, None, None)) for sink in self._sinks]
        for thread in leaving:
            thread.start()
        for thread in leaving:
            thread.join()

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Hand the frame to each."""
        for sink in self._sinks:
            sink.write(frame, result)
