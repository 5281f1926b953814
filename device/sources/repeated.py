"""A recording that begins again at its end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

from edgekit.device.frame import Frame, Source, presentation_time_s
from edgekit.device.sources.files import PlayedSource


class RepeatedSource(PlayedSource):
    """The frames of a recording again and again, until `stop`; numbers and positions go on."""

    live = False
    frame_count = None

    def __init__(self, recording: Source, reopen: Callable[[], Source]) -> None:
        """Play `recording`, which is entered and exited with this source, and then what `reopen` returns."""
        super().__init__(recording)
        self._reopen = reopen
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End the iteration before its next frame."""
        self._stopped.set()
        self._recording.stop()

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames.

        Raises:
            InputError: The file was deleted or cannot be read.
        """
        position_s = presentation_time_s(self._recording)
        period_s = 1 / (self._recording.fps or 25.0)
        first, start_s, length = 0, 0.0, None
        sequence, played_s = -1, 0.0
        while not self._stopped.is_set():
            for frame in self._recording:
                if self._stopped.is_set():
                    return
                sequence, played_s = first + frame.sequence, start_s + position_s(frame)
                yield replace(frame, sequence=sequence, position_s=played_s)
                if frame.sequence + 1 == length:  # at its end a video counts damaged frames: once is enough
                    break
            length = sequence + 1 - first
            first, start_s = sequence + 1, played_s + period_s
            self._recording.__exit__(None, None, None)
            self._recording = self._reopen().__enter__()
