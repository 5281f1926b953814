"""`edgekit.benchmark`: measures how fast models are on this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np

from edgekit.boards import read_board
from edgekit.device.benchmark import BenchmarkOptions
from edgekit.device.benchmark.jobs import (
    Cell,
    DetectorChoice,
    FrameCache,
    Job,
    default_thread_counts,
    frame_cache,
    plan_cells,
    plan_rounds,
)
from edgekit.device.benchmark.measure import latency_of
from edgekit.device.benchmark.rounds import Measured, measure_all
from edgekit.device.detection import Sizable, needed_detector
from edgekit.device.engines.engine import contract_in, device_suffixes, engine_of, open_engine
from edgekit.device.engines.session import versions
from edgekit.device.sources import open_source
from edgekit.errors import EdgekitError, InputError
from edgekit.files import sha256_of
from edgekit.model_store import ONNX_SUFFIX, resolve_model
from edgekit.options import takes
from edgekit.report.document import (
    KINDS,
    SCHEMA,
    BenchmarkReport,
    BoardInfo,
    BoardResult,
    CellResult,
    FrameCacheInfo,
    ModelInfo,
    ProcessResult,
    RepeatedProcess,
    Settings,
)
from edgekit.report.statistics import histogram, median_interval

# Not 0, which no limit of a ratio can be.
_SMALLEST_LIMIT_MS = 1e-5


def describe_model(name: str, path: Path) -> ModelInfo:
    """Return the description of a model file for the report.

    Raises:
        InputError: The file cannot be loaded or has no valid contract, or its engine is not installed.
    """
    # Loaded completely, not only its contract: a model that does not load is reported before the measurement.
    contract = open_engine(path, intra_op_threads=1).contract
    return ModelInfo(
        name=name,
        sha256=sha256_of(path),
        size_bytes=path.stat().st_size,
        architecture=contract.architecture,
        precision=contract.precision,
        input_hw=contract.input.size_hw,
        labels=len(contract.labels),
    )


def cell_result(measured: Measured, started_s: float) -> CellResult:
    """Return the figures of a cell over all its processes, for the report.

    Args:
        measured: The cell and its runs, at least one.
        started_s: The start on the system's monotonic clock; times in the report count from this start.
    """
    runs, first = measured.runs, measured.runs[0]
    processes = [
        msgspec.structs.replace(run.process, started_s=round(run.process.started_s - started_s, 3)) for run in runs
    ]
    samples_ms = [np.asarray(run.samples_ms, np.float64) for run in runs]
    all_ms = np.concatenate(samples_ms)
    interval_ms = median_interval(samples_ms)  # None with too few processes
    if interval_ms:
        interval_ms = (_rounded(interval_ms[0]), _rounded(interval_ms[1]))
    images_per_s = first.batch / (float(all_ms.mean()) / 1e3)
    faces = [run.faces_per_frame for run in runs if run.faces_per_frame is not None]
    ages_ms = [age_ms for run in runs for age_ms in run.ages_ms]
    stages_ms: dict[str, list[float]] = {}  # times by stage, of all runs
    for run in runs:
        for stage, times_ms in run.stages_ms.items():
            stages_ms.setdefault(stage, []).extend(times_ms)
    return CellResult(
        kind=measured.cell.kind,
        model=measured.cell.model,
        engine=engine_of(measured.cell.path),
        intra_op_threads=first.intra_op_threads,
        batch=first.batch,
        detector=first.detector,
        faces_per_frame=round(float(np.mean(faces)), 4) if faces else None,
        latency=latency_of(all_ms),
        median_interval_ms=interval_ms,
        images_per_s=round(images_per_s, 3),
        load_ms=round(float(np.median([process.load_ms for process in processes])), 3),
        resident_mib=max(process.resident_mib for process in processes),
        histogram=histogram(all_ms),
        stages={stage: latency_of(times_ms) for stage, times_ms in stages_ms.items()},
        age=latency_of(ages_ms) if ages_ms else None,
        quality_flags=tuple(sorted({flag for process in processes for flag in process.quality_flags})),
        repeated=tuple(_repeated(run.process) for run in measured.discarded),
        processes=tuple(processes),
        threads=first.threads,
    )


def _repeated(process: ProcessResult) -> RepeatedProcess:
    """Return what the report states of an invalid process, which was measured again."""
    return RepeatedProcess(quality_flags=process.quality_flags, p50_ms=process.latency.p50_ms, after=process.after)


def _rounded(limit_ms: float) -> float:
    """Return a limit of an interval, rounded."""
    return max(round(limit_ms, 5), _SMALLEST_LIMIT_MS)


_CACHE_LIMIT_MIB = 160
_MIN_ITERATIONS = 100


class IncompleteError(EdgekitError):
    """A benchmark failed after at least one process; `report` has the results of the finished processes."""

    def __init__(self, error: EdgekitError, report: BenchmarkReport) -> None:
        super().__init__(str(error))
        self.exit_code = error.exit_code
        self.report = report


@takes(BenchmarkOptions)
def benchmark(options: BenchmarkOptions) -> BenchmarkReport:
    """Measure models on this machine and return the report; docs/explanation/benchmarks.md describes the method.

    Ctrl-C (KeyboardInterrupt) ends the benchmark early: the report of the finished processes is returned, with
    `complete` false. If no process has finished, KeyboardInterrupt is raised.

    `BenchmarkOptions` describes the arguments.

    Raises:
        InputError: A model or an argument is invalid.
        SourceError: The source has no frames.
        EdgekitError: A process ended without a result.
        IncompleteError: The benchmark failed after at least one process.

    Example:
        >>> report = edgekit.benchmark(["float.onnx", "int8.onnx"], seconds=5, kinds=["net", "run"])
        >>> [(cell.model, cell.kind, cell.latency.p50_ms) for cell in report.boards[0].cells]
    """
    models = [options.models] if isinstance(options.models, str | Path) else options.models
    names = [str(model) for model in models]
    paths = [resolve_model(name, device_suffixes(name)).absolute() for name in names]
    named = [(options.report_name(name), path) for name, path in zip(names, paths, strict=True)]
    # A model of features does not classify, so only its net can be measured.
    of_features = {path for path in paths if contract_in(path).output.meaning == "features"}
    planned = plan_cells(named, options.threads, options.kinds or KINDS)
    cells = [cell for cell in planned if cell.kind == "net" or cell.path not in of_features]
    if not cells:
        raise InputError(
            f"'{names[0]}' returns features instead of classes, so it has the kind 'net' only: leave kinds out"
        )
    described = [describe_model(name, path) for name, path in named]
    board = read_board()
    uses_frames = any(cell.kind != "net" for cell in cells)
    choice = _detector(paths, _wanted_detector(options), options.notify) if uses_frames else None
    settings = Settings(
        seconds=options.seconds,
        min_iterations=_MIN_ITERATIONS,
        processes=options.processes,
        batch=options.batch,
        seed=options.seed,
        cool_down_s=options.cool_down_s,
        allow_throttled=options.allow_throttled,
        intra_op_threads=tuple(options.threads or default_thread_counts()),
        detector_size_px=choice.input_size_px if choice else None,
    )
    with _frames(options.source if uses_frames else None, options.report_name, options.notify) as (cache, info):
        order = plan_rounds(_jobs(cells, options, cache, choice), options.processes, options.seed)
        started_s = time.monotonic()
        measured, ended_by = measure_all(
            order, board.processors, options.cool_down_s, options.allow_throttled, progress=options.progress
        )
    results = [cell_result(one, started_s) for one in measured]
    # At least one process has finished: otherwise `measure_all` raises.
    processes = [process for cell in results for process in cell.processes]
    processes.sort(key=lambda process: process.started_s)
    result = BoardResult(
        label=None,
        board=msgspec.convert(board, BoardInfo, from_attributes=True),
        versions=versions(),
        notes=dict(options.notes),
        settings=settings,
        complete=ended_by is None,
        before=processes[0].before,
        after=processes[-1].after,
        frame_cache=info,
        models=tuple(described),
        cells=tuple(results),
    )
    now = datetime.now(UTC).isoformat(timespec="seconds")
    report = BenchmarkReport(schema=SCHEMA, created_utc=now, boards=(result,))
    if isinstance(ended_by, EdgekitError):
        raise IncompleteError(ended_by, report) from ended_by
    return report


def _jobs(
    cells: Sequence[Cell], options: BenchmarkOptions, cache: FrameCache | None, detector: DetectorChoice | None
) -> list[Job]:
    """Return the job of each cell; the processes of a cell share its time and its iterations."""
    seconds, iterations = options.seconds / options.processes, math.ceil(_MIN_ITERATIONS / options.processes)
    jobs = []
    for cell in cells:
        if cell.kind == "net":
            jobs.append(Job(cell, seconds, iterations, options.batch))
        else:  # the batch size is an option of the kind "net" only
            jobs.append(Job(cell, seconds, iterations, batch=1, cache=cache, detector=detector))
    return jobs


@contextmanager
def _frames(
    source: str | None, report_name: Callable[[str], str], notify: Callable[[str], None]
) -> Iterator[tuple[FrameCache | None, FrameCacheInfo | None]]:
    """Yield a cache with the frames of a source, and the cache's description; (None, None) without a source.

    `report_name` returns the name of the source in the report.
    """
    if source is None:
        yield None, None
        return
    opened = open_source(source, notify)
    with frame_cache(opened, report_name(opened.name), _CACHE_LIMIT_MIB) as (cache, info):
        if not info.complete:
            notify(f"only the first {info.frames} frames of {info.source} fit into {_CACHE_LIMIT_MIB} MiB")
        yield cache, info


def _wanted_detector(options: BenchmarkOptions) -> DetectorChoice:
    """Return the detector that the options request; its name is empty if they request none."""
    wanted = "" if options.detector is None else str(options.detector)
    if wanted.endswith(ONNX_SUFFIX):
        return DetectorChoice("yunet", Path(wanted).absolute(), options.detector_size_px)
    return DetectorChoice(wanted, model_path=None, input_size_px=options.detector_size_px)


def _detector(models: Sequence[Path], wanted: DetectorChoice, notify: Callable[[str], None]) -> DetectorChoice | None:
    """Return the detector with which the models are measured; None if all of them classify whole images.

    It is created here once to learn which one is available, and the size of its input.

    Raises:
        InputError: A detector is requested and no model classifies faces, or the detector cannot be created.
    """
    face_models = [path for path in models if contract_in(path).subject == "face"]
    requested = wanted.name or None
    if not face_models:
        needed_detector("image", requested, models[0])  # raises if a detector is requested
        return None
    wanted = replace(wanted, name=needed_detector("face", requested, face_models[0]))
    detector = wanted.create(intra_op_threads=None, notify=notify)
    size_px = detector.input_size_px if isinstance(detector, Sizable) else wanted.input_size_px
    model_path = wanted.model_path if detector.name == "yunet" else None  # another one may have replaced it
    return DetectorChoice(detector.name, model_path, size_px)
