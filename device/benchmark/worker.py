"""Measures one cell in a process of its own: `python -m edgekit.device.benchmark.worker`, job on stdin, JSON lines out.

Lines are {"progress": share}, then {"run": what `Run.as_message` says} or {"error": text, "exit_code": number}.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import EdgekitError

if TYPE_CHECKING:
    from edgekit.device.detection import Detector
    from edgekit.device.sources import Source


@dataclass(frozen=True)
class DetectorChoice:
    """Which detector a pipeline gets."""

    name: str
    model_path: Path | None
    input_size_px: int


@dataclass(frozen=True)
class Job:
    """What a worker measures: a cell, see `benchmark.measure`, and how; `clip_path` is one of `save_frame_cache`.

    `camera` is one of `open_camera`, for cells of that kind.
    """

    model: str
    path: Path
    intra_op_threads: int
    kind: str
    seconds: float
    min_iterations: int
    batch: int
    clip_path: Path | None
    detector: DetectorChoice | None
    camera: str | None = None

    def to_json(self) -> str:
        """Return the job as one line for a worker's stdin."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Return the job that `to_json` wrote."""
        fields = json.loads(text)
        detector = fields.pop("detector")
        if detector is not None:
            path = detector["model_path"]
            detector = DetectorChoice(detector["name"], Path(path) if path else None, detector["input_size_px"])
        folder = fields.pop("clip_path")
        fields["path"] = Path(fields["path"])
        return cls(**fields, clip_path=Path(folder) if folder else None, detector=detector)


def work(job: Job, progress: Callable[[float], None]) -> dict[str, Any]:
    """Measure a job in this process and return the message about it."""
    from edgekit.device.detection import create_detector
    from edgekit.device.sources import open_camera

    chosen = job.detector

    def make_detector(intra_op_threads: int) -> Detector:
        assert chosen is not None
        return create_detector(
            chosen.name,
            model_path=chosen.model_path,
            input_size_px=chosen.input_size_px,
            intra_op_threads=intra_op_threads,
            notify=lambda _: None,
        )

    with open_camera(job.camera, lambda _: None) if job.camera else nullcontext() as camera:
        return _measured(job, camera, make_detector if chosen else None, progress)


def _measured(
    job: Job,
    camera: Source | None,
    make_detector: Callable[[int], Detector] | None,
    progress: Callable[[float], None],
) -> dict[str, Any]:
    from edgekit.device.benchmark.cells import Cell
    from edgekit.device.benchmark.frame_cache import map_clip
    from edgekit.device.benchmark.measure import measure

    run = measure(
        Cell(job.model, job.path, job.intra_op_threads, job.kind),  # type: ignore[arg-type]
        seconds=job.seconds,
        min_iterations=job.min_iterations,
        batch=job.batch,
        clip=map_clip(job.clip_path) if job.clip_path else None,
        camera=camera,
        make_detector=make_detector,
        progress=progress,
    )
    return run.as_message()


def main() -> int:
    """Read a job, measure it, report; the exit code is 0 unless the process dies."""
    # Libraries may print on stdout; the report has a channel of its own.
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def tell(message: dict[str, Any]) -> None:
        channel.write(json.dumps(message) + "\n")
        channel.flush()

    job = Job.from_json(sys.stdin.read())
    try:
        run = work(job, lambda share: tell({"progress": share}))
        tell({"run": run})
    except EdgekitError as error:
        tell({"error": str(error), "exit_code": error.exit_code})
    except MemoryError:
        tell({"error": f"not enough memory to measure '{job.model}': close other programs", "exit_code": 1})
    return 0


if __name__ == "__main__":
    sys.exit(main())
