"""Builds the report of a benchmark from the runs of its processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np

from edgekit.boards import Board
from edgekit.device.benchmark.frame_cache import FrameCache
from edgekit.device.benchmark.rounds import Measured
from edgekit.device.benchmark.sampling import Run, latency_of
from edgekit.device.engines.engine import open_engine
from edgekit.device.engines.versions import versions
from edgekit.files import sha256_of
from edgekit.report.document import (
    SCHEMA,
    BenchmarkReport,
    BoardInfo,
    BoardResult,
    CellResult,
    Energy,
    FrameCacheInfo,
    ModelInfo,
    ProcessResult,
    RepeatedProcess,
    Settings,
)
from edgekit.report.power import PowerReading, mean_watts
from edgekit.report.statistics import histogram, median_interval

_INTERVAL_DIGITS = 5
_SMALLEST_LIMIT_MS = 1e-5


@dataclass(frozen=True)
class BenchmarkSetup:
    """What was measured and how: the board, the models, the frames in memory, the user's settings and notes."""

    board: Board
    models: Sequence[ModelInfo]
    cache: FrameCache | None
    settings: Settings
    notes: Mapping[str, str]


def describe_model(name: str, path: Path) -> ModelInfo:
    """Return the description of a model file for the report.

    Raises:
        InputError: The file cannot be loaded or has no valid contract, or its engine is not installed.
    """
    contract = open_engine(path, 1).contract
    return ModelInfo(
        name=name,
        sha256=sha256_of(path),
        size_bytes=path.stat().st_size,
        architecture=contract.architecture,
        precision=contract.precision,
        input_hw=contract.input.size_hw,
        labels=len(contract.labels),
    )


def build_report(
    setup: BenchmarkSetup,
    measured: Sequence[Measured],
    *,
    started_s: float,
    complete: bool,
    power: Sequence[PowerReading] = (),
) -> BenchmarkReport:
    """Return the report of one board.

    Args:
        setup: What was measured and how.
        measured: At least one cell, each with at least one run.
        started_s: The start on the system's monotonic clock; times in the report count from this start.
        complete: Whether everything planned was measured.
        power: Readings of a power meter.
    """
    cells = [_cell_result(cell, started_s, power) for cell in measured]
    processes = sorted((process for cell in cells for process in cell.processes), key=lambda one: one.started_s)
    result = BoardResult(
        label=None,
        board=msgspec.convert(setup.board, BoardInfo, from_attributes=True),
        versions=versions(),
        notes=dict(setup.notes),
        settings=setup.settings,
        complete=complete,
        before=processes[0].before,
        after=processes[-1].after,
        frame_cache=None if setup.cache is None else _cache_info(setup.cache),
        models=tuple(setup.models),
        cells=tuple(cells),
    )
    return BenchmarkReport(schema=SCHEMA, created_utc=datetime.now(UTC).isoformat(timespec="seconds"), boards=(result,))


def _cache_info(cache: FrameCache) -> FrameCacheInfo:
    height, width = cache.frames[0].shape[:2]
    return FrameCacheInfo(
        source=cache.name,
        frames=len(cache.frames),
        complete=cache.complete,
        first_frame_wh=(width, height),
        memory_mib=round(cache.mib, 1),
        pixels_sha256=cache.sha256,
    )


def _rounded(limit_ms: float) -> float:
    # Not 0, which no limit of a ratio can be.
    return max(round(limit_ms, _INTERVAL_DIGITS), _SMALLEST_LIMIT_MS)


def _cell_result(measured: Measured, started_s: float, power: Sequence[PowerReading]) -> CellResult:
    runs, first = measured.runs, measured.runs[0]
    processes = [
        msgspec.structs.replace(run.process, started_s=round(run.process.started_s - started_s, 3)) for run in runs
    ]
    samples_ms = [np.asarray(run.samples_ms, np.float64) for run in runs]
    all_ms = np.concatenate(samples_ms)
    interval = median_interval(samples_ms)
    images_per_s = first.batch / (float(all_ms.mean()) / 1e3)
    faces = [run.faces_per_frame for run in runs if run.faces_per_frame is not None]
    ages_ms = [age_ms for run in runs for age_ms in run.ages_ms]
    return CellResult(
        kind=measured.cell.kind,
        model=measured.cell.model,
        engine=measured.cell.engine,
        intra_op_threads=first.intra_op_threads,
        batch=first.batch,
        detector=first.detector,
        faces_per_frame=round(float(np.mean(faces)), 4) if faces else None,
        latency=latency_of(all_ms),
        median_interval_ms=interval and (_rounded(interval[0]), _rounded(interval[1])),
        images_per_s=round(images_per_s, 3),
        load_ms=round(float(np.median([process.load_ms for process in processes])), 3),
        resident_mib=max(process.resident_mib for process in processes),
        histogram=histogram(all_ms),
        stages={
            name: latency_of(_joined(runs, name)) for name in dict.fromkeys(n for run in runs for n in run.stages_ms)
        },
        energy=_energy(processes, images_per_s, power),
        age=latency_of(ages_ms) if ages_ms else None,
        quality_flags=tuple(sorted({flag for process in processes for flag in process.quality_flags})),
        repeated=tuple(_repeated(run) for run in measured.discarded),
        processes=tuple(processes),
        threads=first.threads,
    )


def _joined(runs: Sequence[Run], stage: str) -> list[float]:
    return [time_ms for run in runs for time_ms in run.stages_ms.get(stage, ())]


def _repeated(run: Run) -> RepeatedProcess:
    process = run.process
    return RepeatedProcess(quality_flags=process.quality_flags, p50_ms=process.latency.p50_ms, after=process.after)


def _energy(processes: Sequence[ProcessResult], images_per_s: float, power: Sequence[PowerReading]) -> Energy | None:
    if not power:
        return None
    watts = [mean_watts(power, one.started_s, one.started_s + one.elapsed_s) for one in processes]
    known = [value for value in watts if value is not None]
    if len(known) < len(watts):
        return None
    mean_w = float(np.mean(known))
    return Energy(mean_w=round(mean_w, 4), joules_per_image=round(mean_w / images_per_s, 9))
