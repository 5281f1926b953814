"""A recording played in real time, as a camera would deliver it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Self

from edgekit.device.frame import Frame, Source, presentation_time_s
from edgekit.errors import InputError

# Longest delay until `stop` takes effect.
_POLL_S = 0.1


class RealtimeSource:
    """A live source that yields each frame of a recording at its presentation time and drops late frames."""

    live = True

    def __init__(self, recording: Source) -> None:
        """Play `recording`, which is entered and exited with this source.

        Raises:
            InputError: `recording` has no frame rate.
        """
        if recording.fps is None:
            raise InputError(f"source '{recording.name}' has no frame rate: leave realtime out")
        self.name = recording.name
        self.fps: float | None = recording.fps
        self.frame_count = recording.frame_count
        self.dropped = 0
        self._recording = recording
        self._position_s = presentation_time_s(recording)
        self._stopping = False

    @property
    def skipped(self) -> int:
        """Number of images or frames that could not be decoded."""
        return self._recording.skipped

    def __enter__(self) -> Self:
        self._recording.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
        self._recording.__exit__(*exception)

    def stop(self) -> None:
        """End the iteration before its next frame."""
        self._stopping = True
        self._recording.stop()

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames; the capture time of each is its presentation time."""
        started_s = started_wall_s = None
        held: Frame | None = None
        for frame in self._recording:
            if started_s is None or started_wall_s is None:
                started_s, started_wall_s = time.monotonic(), time.time()
            # A held frame is dropped only if the next frame is due already.
            position_s = self._position_s(frame)
            due_s = started_s + position_s
            if held is not None:
                if due_s <= time.monotonic():
                    self.dropped += 1
                else:
                    yield held
                    if self._stopping:
                        return
            if not self._wait(due_s):
                return
            held = Frame(frame.sequence, due_s, started_wall_s + position_s, frame.image_bgr)
        if held is not None and not self._stopping:
            yield held

    def _wait(self, due_s: float) -> bool:
        while not self._stopping and (left_s := due_s - time.monotonic()) > 0:
            time.sleep(min(left_s, _POLL_S))
        return not self._stopping
