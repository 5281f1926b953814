"""A cell with everything that its worker process needs to measure it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgekit.device.benchmark.cells import Cell
from edgekit.device.benchmark.frame_cache import FrameCache
from edgekit.device.detection import Detector, create_detector


@dataclass(frozen=True)
class DetectorChoice:
    """The detector for the kinds "frame" and "run"."""

    name: str
    model_path: Path | None
    input_size_px: int | None

    def create(self, intra_op_threads: int | None = None, notify: Callable[[str], None] = lambda _: None) -> Detector:
        """Return the detector, or the one that replaces it, with one line for `notify`."""
        return create_detector(
            self.name,
            model_path=self.model_path,
            input_size_px=self.input_size_px,
            intra_op_threads=intra_op_threads,
            notify=notify,
        )


@dataclass(frozen=True)
class Job:
    """A cell and how to measure it.

    Attributes:
        cell: What to measure.
        seconds: Minimum time of measured work, and maximum time of the warm-up.
        min_iterations: Minimum number of measured iterations.
        batch: Faces or images per iteration of "net".
        cache: The frames of the kinds "frame" and "run".
        detector: Their detector; None if the model classifies whole images.
    """

    cell: Cell
    seconds: float
    min_iterations: int
    batch: int
    cache: FrameCache | None = None
    detector: DetectorChoice | None = None

    def make_detector(self, intra_op_threads: int) -> Detector:
        """Return the detector."""
        assert self.detector is not None
        return self.detector.create(intra_op_threads, lambda _: None)

    def to_json(self) -> bytes:
        """Return the job for a worker's stdin."""
        return msgspec.json.encode(self, enc_hook=str)

    @classmethod
    def from_json(cls, content: bytes) -> Job:
        """Return the job that `to_json` wrote."""
        return msgspec.json.decode(content, type=cls, dec_hook=lambda kind, text: kind(text))
