"""`edgekit.benchmark`: measures how fast models are on this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from edgekit.boards import read_board
from edgekit.device.benchmark.cells import default_thread_counts, plan_cells, plan_rounds
from edgekit.device.benchmark.document import cell_result, describe_model
from edgekit.device.benchmark.frame_cache import FrameCache, frame_cache
from edgekit.device.benchmark.job import DetectorChoice, Job
from edgekit.device.benchmark.rounds import BenchmarkProgress, measure_all
from edgekit.device.detection import Sizable, needed_detector
from edgekit.device.engines.engine import contract_in, device_suffixes
from edgekit.device.engines.versions import versions
from edgekit.device.sources import open_source
from edgekit.errors import EdgekitError, InputError, warn
from edgekit.model_store import resolve_model
from edgekit.report.document import (
    KINDS,
    SCHEMA,
    BenchmarkReport,
    BoardInfo,
    BoardResult,
    FrameCacheInfo,
    Kind,
    Settings,
)
from edgekit.report.power import PowerReading
from edgekit.report.schema import check_fits

_CACHE_LIMIT_MIB = 160
_MIN_ITERATIONS = 100


class IncompleteError(EdgekitError):
    """A benchmark failed after at least one process; `report` has the results of the finished processes."""

    def __init__(self, error: EdgekitError, report: BenchmarkReport) -> None:
        super().__init__(str(error))
        self.exit_code = error.exit_code
        self.report = report


def benchmark(
    models: str | Path | Sequence[str | Path],
    *,
    kinds: Sequence[Kind] = KINDS,
    threads: Sequence[int] | None = None,
    source: str = "demo",
    detector: str | None = None,
    detector_model: str | Path | None = None,
    detector_size_px: int | None = None,
    seconds: float = 10.0,
    processes: int = 3,
    batch: int = 1,
    seed: int = 0,
    cool_down_s: float = 20.0,
    allow_throttled: bool = False,
    notes: Mapping[str, str] | None = None,
    power: Callable[[float], Sequence[PowerReading]] = lambda _: (),
    report_name: Callable[[str], str] = lambda name: name,
    progress: Callable[[BenchmarkProgress], None] = lambda _: None,
    notify: Callable[[str], None] = warn,
) -> BenchmarkReport:
    """Measure models on this machine and return the report; docs/explanation/benchmarks.md describes the method.

    Ctrl-C (KeyboardInterrupt) ends the benchmark early: the report of the finished processes is returned, with
    `complete` false. If no process has finished, KeyboardInterrupt is raised.

    Args:
        models: One or several .onnx or .ncnn files, or names such as "default".
        kinds: What to measure; see `Cell`.
        threads: Numbers of threads. None: 1 and the number of processors; a run is measured once, with the numbers of
            threads that `edgekit run` chooses.
        source: The frames for the kinds "frame" and "run", as `edgekit run --source`.
        detector: The detector for the kinds "frame" and "run"; default: "yunet". Models of whole images use none.
        detector_model: Model file of the detector; default: downloaded once.
        detector_size_px: Longer side of the detector's input image; None: 320, or the fixed size of the file.
        seconds: Minimum time per cell, shared by its processes.
        processes: Processes per cell; an interval needs at least three.
        batch: Faces or images per iteration of "net".
        seed: Determines the order of the cells.
        cool_down_s: Longest pause between processes, in which the board cools down.
        allow_throttled: Keep measurements of a throttled board instead of repeating them.
        notes: Conditions that no program detects, such as {"fan": "none"}.
        power: Called at the end with the Unix time of the start; returns a power meter's readings.
        report_name: Returns the name of a model or source in the report; default: as it is given.
        progress: Called before and after each process.
        notify: Receives warnings.

    Raises:
        InputError: A model or an argument is invalid.
        SourceError: The source has no frames.
        EdgekitError: A process ended without a result.
        IncompleteError: The benchmark failed after at least one process.

    Example:
        >>> report = edgekit.benchmark(["float.onnx", "int8.onnx"], seconds=5, kinds=["net", "run"])
        >>> [(cell.model, cell.kind, cell.latency.p50_ms) for cell in report.boards[0].cells]
    """
    names = [str(model) for model in ([models] if isinstance(models, str | Path) else models)]
    check_fits(names=(*names, source))
    bounds = (
        ("seconds", 0.01, seconds),
        ("cool_down_s", 0, cool_down_s),
        ("processes", 1, processes),
        ("batch", 1, batch),
    )
    for what, least, value in bounds:
        if not value >= least:
            raise InputError(f"{what} is {value}: expected at least {least}")
    named = [(report_name(name), resolve_model(name, device_suffixes(name)).absolute()) for name in names]
    # A model of features classifies no frames.
    features = {path for _, path in named if contract_in(path).output.meaning == "features"}
    cells = [cell for cell in plan_cells(named, threads, kinds) if cell.kind == "net" or cell.path not in features]
    described = [describe_model(name, path) for name, path in named]
    board = read_board()
    uses_frames = any(cell.kind != "net" for cell in cells)
    wanted = DetectorChoice(
        detector or "", Path(detector_model).absolute() if detector_model else None, detector_size_px
    )
    choice = _detector([path for _, path in named], wanted, notify) if uses_frames else None
    settings = Settings(
        seconds=seconds,
        min_iterations=_MIN_ITERATIONS,
        processes=processes,
        batch=batch,
        seed=seed,
        cool_down_s=cool_down_s,
        allow_throttled=allow_throttled,
        intra_op_threads=tuple(threads or default_thread_counts()),
        detector_size_px=choice.input_size_px if choice else None,
    )
    with _frames(source if uses_frames else None, report_name, notify) as (cache, info):
        amount = seconds / processes, math.ceil(_MIN_ITERATIONS / processes)
        jobs = [
            Job(cell, *amount, batch) if cell.kind == "net" else Job(cell, *amount, 1, cache, choice) for cell in cells
        ]
        started_s, started_unix_s = time.monotonic(), time.time()
        order = plan_rounds(jobs, processes, seed)
        measured, ended_by = measure_all(order, board.processors, cool_down_s, allow_throttled, progress=progress)
    readings = power(started_unix_s)
    results = [cell_result(one, started_s, readings) for one in measured]
    by_start = sorted((process for cell in results for process in cell.processes), key=lambda one: one.started_s)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    result = BoardResult(
        label=None,
        board=msgspec.convert(board, BoardInfo, from_attributes=True),
        versions=versions(),
        notes=dict(notes or {}),
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
        needed_detector("image", wanted.name or str(wanted.model_path or "none"), paths[0])
        return None
    wanted = replace(wanted, name=needed_detector("face", wanted.name or None, faces[0]))
    detector = wanted.create(None, notify)
    size_px = detector.input_size_px if isinstance(detector, Sizable) else wanted.input_size_px
    return DetectorChoice(detector.name, wanted.model_path if detector.name == "yunet" else None, size_px)
