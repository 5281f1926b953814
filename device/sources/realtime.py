"""A recording played in real time, as a camera would deliver it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Self

from edgekit.device.frame import Frame, Source, presentation_time_s
from edgekit.device.stages import Stages
from edgekit.errors import InputError

# Longest delay until `stop` takes effect.
_POLL_S = 0.1


class RealtimeSource:
    """A live source that plays a recording in a thread: each frame arrives at its presentation time.

    A frame that waits to be taken is replaced by the next one, and counted in `dropped`.
    """

    live = True

    def __init__(self, recording: Source) -> None:
        """Play `recording`, which is entered and exited with this source.

        Raises:
            InputError: `recording` has no frame rate.
        """
        if recording.fps is None:
            raise InputError(f"source '{recording.name}' has no frame rate: leave realtime out")
        self._recording = recording
        self._position_s = presentation_time_s(recording)
        self._player = Stages(threaded=True, every_item=False)
        self._stopping = False

    @property
    def dropped(self) -> int:
        """Number of frames replaced by newer ones before they were read."""
        return sum(self._player.dropped.values())

    def __getattr__(self, name: str) -> Any:
        """Return any other attribute (`name`, `fps`, `skipped`, …) of the recording."""
        return getattr(self._recording, name)

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
        """Yield the newest frame, each at most once; its capture time is its presentation time."""
        with self._player:
            for frame in self._player.prefetch("capture", self._played()):
                if self._stopping:
                    return
                yield frame

    def _played(self) -> Iterator[Frame]:
        """Yield every frame at its presentation time, or later if decoding takes longer."""
        started_s = started_wall_s = None
        for frame in self._recording:
            if started_s is None or started_wall_s is None:
                started_s, started_wall_s = time.monotonic(), time.time()
            position_s = self._position_s(frame)
            if not self._wait(started_s + position_s):
                return
            yield Frame(frame.sequence, started_s + position_s, started_wall_s + position_s, frame.image_bgr)

    def _wait(self, due_s: float) -> bool:
        while not self._stopping and (left_s := due_s - time.monotonic()) > 0:
            time.sleep(min(left_s, _POLL_S))
        return not self._stopping
