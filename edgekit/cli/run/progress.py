"""The progress bar of `edgekit run` for recordings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from edgekit.cli.output import Output
from edgekit.cli.progress import is_progress_shown, progress_bar, updater

if TYPE_CHECKING:
    from edgekit.device.detections import FrameResult
    from edgekit.device.frame import Frame
    from edgekit.device.sink import Sink


def progress_sinks(out: Output, frame_count: int | None, max_frames: int | None) -> list[Sink]:
    """Return a list with the sink of the progress bar, empty if it would show nothing."""
    if frame_count is None or not is_progress_shown():
        return []
    return [_Progress(out, min(frame_count, max_frames or frame_count))]


class _Progress:
    def __init__(self, out: Output, total: int) -> None:
        self._bar = progress_bar(out)
        self._update = updater(self._bar, "frames")
        self._total = total
        self._done = 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def write(self, frame: Frame, result: FrameResult) -> None:
        del frame, result
        self._done += 1
        self._update(self._done, self._total)
