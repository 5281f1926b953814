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
from edgekit.errors import EdgekitError
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


def cell_result(measured: Measured, started_s: float) -> CellResult:
    """Return the result of a cell with at least one run, over all its processes.

    Args:
        measured: The cell and its runs.
        started_s: The start on the system's monotonic clock; times in the report count from this start.
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
    stages = dict.fromkeys(name for run in runs for name in run.stages_ms)  # each name once, in order
    return CellResult(
        kind=measured.cell.kind,
        model=measured.cell.model,
        engine=engine_of(measured.cell.path),
        intra_op_threads=first.intra_op_threads,
        batch=first.batch,
        detector=first.detector,
        faces_per_frame=round(float(np.mean(faces)), 4) if faces else None,
        latency=latency_of(all_ms),
        # None with too few processes.
        median_interval_ms=interval and (_rounded(interval[0]), _rounded(interval[1])),
        images_per_s=round(images_per_s, 3),
        load_ms=round(float(np.median([process.load_ms for process in processes])), 3),
        resident_mib=max(process.resident_mib for process in processes),
        histogram=histogram(all_ms),
        stages={name: latency_of(t for run in runs for t in run.stages_ms.get(name, ())) for name in stages},
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
    kinds = options.kinds or KINDS
    # The name in the report and the file of each model.
    named = [(options.report_name(name), resolve_model(name, device_suffixes(name)).absolute()) for name in names]
    # A model of features classifies no frames.
    features = {path for _, path in named if contract_in(path).output.meaning == "features"}
    cells = [
        cell for cell in plan_cells(named, options.threads, kinds) if cell.kind == "net" or cell.path not in features
    ]
    described = [describe_model(name, path) for name, path in named]
    board = read_board()
    uses_frames = any(cell.kind != "net" for cell in cells)
    detector = "" if options.detector is None else str(options.detector)  # "": what the models need
    detector_file = Path(detector).absolute() if detector.endswith(ONNX_SUFFIX) else None
    wanted = DetectorChoice(detector if detector_file is None else "yunet", detector_file, options.detector_size_px)
    choice = _detector([path for _, path in named], wanted, options.notify) if uses_frames else None
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
        # Seconds and iterations per process.
        amount = options.seconds / options.processes, math.ceil(_MIN_ITERATIONS / options.processes)
        jobs = [
            Job(cell, *amount, options.batch) if cell.kind == "net" else Job(cell, *amount, 1, cache, choice)
            for cell in cells
        ]
        started_s = time.monotonic()
        order = plan_rounds(jobs, options.processes, options.seed)
        measured, ended_by = measure_all(
            order, board.processors, options.cool_down_s, options.allow_throttled, progress=options.progress
        )
    results = [cell_result(one, started_s) for one in measured]
    # The first and the last process have the state of the board before and after everything.
    by_start = sorted((process for cell in results for process in cell.processes), key=lambda one: one.started_s)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    result = BoardResult(
        label=None,
        board=msgspec.convert(board, BoardInfo, from_attributes=True),
        versions=versions(),
        notes=dict(options.notes),
        settings=settings,
        complete=ended_by is None,
        before=by_start[0].before,
        after=by_start[-1].after,
        frame_cache=info,
        models=tuple(described),
        cells=tuple(results),
    )
    report = BenchmarkReport(schema=SCHEMA, created_utc=now, boards=(result,))
    if isinstance(ended_by, EdgekitError):
        raise IncompleteError(ended_by, report) from ended_by
    return report


@contextmanager
def _frames(
    source: str | None, report_name: Callable[[str], str], notify: Callable[[str], None]
) -> Iterator[tuple[FrameCache | None, FrameCacheInfo | None]]:
    """Yield the frames of a source in a cache, with its description; two times None without a source."""
    if source is None:
        yield None, None
        return
    opened = open_source(source, notify)
    with frame_cache(opened, report_name(opened.name), _CACHE_LIMIT_MIB) as (cache, info):
        if not info.complete:
            notify(f"only the first {info.frames} frames of {info.source} fit into {_CACHE_LIMIT_MIB} MiB")
        yield cache, info


def _detector(paths: Sequence[Path], wanted: DetectorChoice, notify: Callable[[str], None]) -> DetectorChoice | None:
    """Return the detector for the models that classify faces; None if all models are of whole images.

    It is created once here: a detector that is not available is replaced, with one line for the user, and a file of
    fixed input size sets the size.

    Raises:
        InputError: A detector is requested and no model is of faces, or the detector cannot be created.
    """
    faces = [path for path in paths if contract_in(path).subject == "face"]
    if not faces:
        # Raises if the user has requested a detector.
        needed_detector("image", wanted.name or str(wanted.model_path or "none"), paths[0])
        return None
    wanted = replace(wanted, name=needed_detector("face", wanted.name or None, faces[0]))
    detector = wanted.create(None, notify)
    size_px = detector.input_size_px if isinstance(detector, Sizable) else wanted.input_size_px
    return DetectorChoice(detector.name, wanted.model_path if detector.name == "yunet" else None, size_px)
