"""Results of a cell from the runs of its processes, and the description of a model, for the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from edgekit.device.benchmark.measure import latency_of
from edgekit.device.benchmark.rounds import Measured
from edgekit.device.engines.engine import engine_of, open_engine
from edgekit.files import sha256_of
from edgekit.report.document import CellResult, Energy, ModelInfo, ProcessResult, RepeatedProcess
from edgekit.report.power import PowerReading, mean_watts
from edgekit.report.statistics import histogram, median_interval

# Not 0, which no limit of a ratio can be.
_SMALLEST_LIMIT_MS = 1e-5


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


def cell_result(measured: Measured, started_s: float, power: Sequence[PowerReading] = ()) -> CellResult:
    """Return the result of a cell with at least one run, over all its processes.

    Args:
        measured: The cell and its runs.
        started_s: The start on the system's monotonic clock; times in the report count from this start.
        power: Readings of a power meter.
    """
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
    stages = dict.fromkeys(name for run in runs for name in run.stages_ms)
    return CellResult(
        kind=measured.cell.kind,
        model=measured.cell.model,
        engine=engine_of(measured.cell.path),
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
        stages={name: latency_of(t for run in runs for t in run.stages_ms.get(name, ())) for name in stages},
        energy=_energy(processes, images_per_s, power),
        age=latency_of(ages_ms) if ages_ms else None,
        quality_flags=tuple(sorted({flag for process in processes for flag in process.quality_flags})),
        repeated=tuple(
            RepeatedProcess(quality_flags=one.quality_flags, p50_ms=one.latency.p50_ms, after=one.after)
            for one in (run.process for run in measured.discarded)
        ),
        processes=tuple(processes),
        threads=first.threads,
    )


def _rounded(limit_ms: float) -> float:
    return max(round(limit_ms, 5), _SMALLEST_LIMIT_MS)


def _energy(processes: Sequence[ProcessResult], images_per_s: float, power: Sequence[PowerReading]) -> Energy | None:
    watts = [mean_watts(power, one.started_s, one.started_s + one.elapsed_s) for one in processes]
    if not power or None in watts:
        return None
    mean_w = float(np.mean([value for value in watts if value is not None]))
    return Energy(mean_w=round(mean_w, 4), joules_per_image=round(mean_w / images_per_s, 9))
