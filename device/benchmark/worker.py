"""Measures one cell in its own process: `python -m edgekit.device.benchmark.worker`.

The program reads a `Job` from stdin and writes JSON lines to stdout. Each line is a `Message`: first the progress, then
the run or an error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edgekit.device.benchmark.cells import Cell
from edgekit.device.benchmark.sampling import Run
from edgekit.errors import EdgekitError

if TYPE_CHECKING:
    from edgekit.device.detection import Detector


@dataclass(frozen=True)
class DetectorChoice:
    """The detector for the kinds "per-frame", "loop" and "camera"."""

    name: str
    model_path: Path | None
    input_size_px: int | None


@dataclass(frozen=True)
class Job:
    """A cell and how to measure it; see `measure`.

    `cache_path` is a file that `save_frame_cache` wrote. `camera` is the camera's name for `open_camera`.
    """

    cell: Cell
    seconds: float
    min_iterations: int
    batch: int
    cache_path: Path | None = None
    detector: DetectorChoice | None = None
    camera: str | None = None

    def to_json(self) -> bytes:
        """Return the job for a worker's stdin."""
        return msgspec.json.encode(self, enc_hook=str)

    @classmethod
    def from_json(cls, content: bytes) -> Job:
        """Return the job that `to_json` wrote."""
        return msgspec.json.decode(content, type=cls, dec_hook=_from_text)


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of a worker's output: the share done, the finished run, or an error with its exit code."""

    progress: float | None = None
    run: Run | None = None
    error: str | None = None
    exit_code: int = 1


def measure_job(job: Job, progress: Callable[[float], None]) -> Run:
    """Measure a job in this process."""
    from edgekit.device.benchmark.frame_cache import map_frame_cache
    from edgekit.device.benchmark.measure import Inputs, measure
    from edgekit.device.detection import create_detector
    from edgekit.device.sources import open_camera

    def make_detector(intra_op_threads: int) -> Detector:
        assert job.detector is not None
        return create_detector(
            job.detector.name,
            model_path=job.detector.model_path,
            input_size_px=job.detector.input_size_px,
            intra_op_threads=intra_op_threads,
            notify=lambda _: None,
        )

    with open_camera(job.camera, lambda _: None) if job.camera else nullcontext() as camera:
        return measure(
            job.cell,
            Inputs(map_frame_cache(job.cache_path) if job.cache_path else None, camera, make_detector),
            seconds=job.seconds,
            min_iterations=job.min_iterations,
            batch=job.batch,
            progress=progress,
        )


def main() -> int:
    """Measure the job on stdin and write messages to stdout; the exit code is 0 unless the process crashes."""
    # Libraries may print on stdout; the messages have their own descriptor.
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def send(message: Message) -> None:
        channel.write(msgspec.json.encode(message) + b"\n")
        channel.flush()

    job = Job.from_json(sys.stdin.buffer.read())
    try:
        send(Message(run=measure_job(job, lambda share: send(Message(progress=share)))))
    except EdgekitError as error:
        send(Message(error=str(error), exit_code=error.exit_code))
    except MemoryError:
        send(Message(error=f"not enough memory to measure '{job.cell.model}': close other programs"))
    return 0


def _from_text(kind: type, text: str) -> Any:
    return kind(text)


if __name__ == "__main__":
    sys.exit(main())
