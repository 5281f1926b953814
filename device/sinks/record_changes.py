"""Fewer records: those of changes, and one per second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from edgekit.device.detections import FrameResult
from edgekit.device.frame import Frame
from edgekit.device.sink import Sink

_EVERY_S = 1.0


class RecordChanges(Sink):
    """Passes a result to another sink if faces or labels have changed, with a health sample, or after one second."""

    def __init__(self, records: Sink, time_s: Callable[[Frame], float]) -> None:
        """Pass results to `records`; `time_s` returns the time of a frame in seconds."""
        self._records = records
        self._time_s = time_s
        self._faces: list[tuple[str, str]] | None = None
        self._passed_s = float("-inf")
        self.accounts = records.accounts

    def __enter__(self) -> Self:
        self._records.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._records.__exit__(*exception)

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Pass the result, or leave it out."""
        faces = sorted((str(face.track_id), face.label) for face in result.faces)
        now_s = self._time_s(frame)
        if faces != self._faces or result.health is not None or now_s - self._passed_s >= _EVERY_S:
            self._faces, self._passed_s = faces, now_s
            self._records.write(frame, result)
