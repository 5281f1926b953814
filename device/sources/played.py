"""Recordings that are played in another way: in real time, or again and again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Self

from edgekit.device.frame import Frame, Source, presentation_time_s
from edgekit.device.stages import Stages
from edgekit.errors import InputError


class PlayedSource:
    """Base of the sources that play a recording in another way; the recording is entered and exited with them."""

    def __init__(self, recording: Source) -> None:
        self._recording = recording
        self._stopped = threading.Event()

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
        self._stopped.set()
        self._recording.stop()


class RealtimeSource(PlayedSource):
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
        super().__init__(recording)
        self._position_s_of = presentation_time_s(recording)
        self._player = Stages(threaded=True, every_item=False)  # a newer frame replaces one that waits

    @property
    def dropped(self) -> int:
        """Number of frames replaced by newer ones before they were read."""
        return sum(self._player.dropped.values())

    def __iter__(self) -> Iterator[Frame]:
        """Yield the newest frame, each at most once; its capture time is its presentation time."""
        with self._player:
            for frame in self._player.prefetch("capture", self._played()):
                if self._stopped.is_set():
                    return
                yield frame

    def _played(self) -> Iterator[Frame]:
        """Yield every frame at its presentation time, or later if decoding takes longer."""
        started_s = started_wall_s = None  # when the first frame was decoded
        for frame in self._recording:
            if started_s is None or started_wall_s is None:
                started_s, started_wall_s = time.monotonic(), time.time()
            position_s = self._position_s_of(frame)
            if self._stopped.wait(max(0.0, started_s + position_s - time.monotonic())):
                return
            yield Frame(frame.sequence, started_s + position_s, started_wall_s + position_s, frame.image_bgr)


class RepeatedSource(PlayedSource):
    """The frames of a recording again and again, until `stop`; numbers and positions go on."""

    live = False
    frame_count = None

    def __init__(self, recording: Source, reopen: Callable[[], Source]) -> None:
        """Play `recording`, which is entered and exited with this source, and then what `reopen` returns."""
        super().__init__(recording)
        self._reopen = reopen

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames.

        Raises:
            InputError: The file was deleted or cannot be read.
        """
        position_s_of = presentation_time_s(self._recording)
        period_s = 1 / (self._recording.fps or 25.0)  # images have no frame rate; 25 as in `presentation_time_s`
        sequence, position_s = -1, -period_s  # of the frame yielded last
        frames_per_pass: int | None = None  # known after the first pass
        while not self._stopped.is_set():
            first_sequence, first_position_s = sequence + 1, position_s + period_s  # of this pass
            for frame in self._recording:
                if self._stopped.is_set():
                    return
                sequence = first_sequence + frame.sequence
                position_s = first_position_s + position_s_of(frame)
                yield replace(frame, sequence=sequence, position_s=position_s)
                # The pass ends here, because a video that finds its end decodes the file again to count damaged frames.
                if frame.sequence + 1 == frames_per_pass:
                    break
            frames_per_pass = sequence + 1 - first_sequence
            # The recording is closed, and `__exit__` of this source closes the next one.
            self._recording.__exit__(None, None, None)
            self._recording = self._reopen().__enter__()
