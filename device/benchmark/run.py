"""`edgekit.benchmark`: measures how fast models are on this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit.boards import read_board
from edgekit.device.benchmark.cells import (
    CACHE_KINDS,
    FRAME_KINDS,
    Cell,
    default_thread_counts,
    plan_cells,
    plan_rounds,
)
from edgekit.device.benchmark.document import BenchmarkSetup, build_report, describe_model
from edgekit.device.benchmark.frame_cache import FrameCache, load_frame_cache, shared_frame_cache
from edgekit.device.benchmark.measure import MIN_ITERATIONS
from edgekit.device.benchmark.rounds import Plan, measure_all, run_worker
from edgekit.device.benchmark.sampling import Run
from edgekit.device.benchmark.worker import DetectorChoice, Job
from edgekit.device.detection import Sizable, create_detector, needed_detector
from edgekit.device.engines.engine import contract_in, device_suffixes
from edgekit.device.sources import open_source
from edgekit.errors import EdgekitError, InputError, warn
from edgekit.model_store import resolve_model
from edgekit.report.document import BenchmarkReport, Kind, ProcessResult, Settings
from edgekit.report.power import PowerReading
from edgekit.report.schema import check_fits

_CACHE_LIMIT_MIB = 160


@dataclass(frozen=True)
class BenchmarkProgress:
    """Progress of a benchmark: `done` of `total` processes; `finished` is the result of a process that just ended."""

    cell: Cell
    done: float
    total: int
    finished: ProcessResult | None = None


class IncompleteError(EdgekitError):
    """A benchmark failed after at least one process; `report` has the results of the finished processes."""

    def __init__(self, error: EdgekitError, report: BenchmarkReport) -> None:
        super().__init__(str(error))
        self.exit_code = error.exit_code
        self.report = report


def benchmark(
    models: str | Path | Sequence[str | Path],
    *,
    kinds: Sequence[Kind] = ("inference", "classifier", "per-frame", "loop"),
    threads: Sequence[int] | None = None,
    source: str = "demo",
    camera: str = "auto",
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
        threads: Numbers of threads. None: 1 and the number of processors; a loop is measured once, with the numbers of
            threads that `edgekit run` chooses.
        source: The frames for the kinds "per-frame" and "loop", as `edgekit run --source`.
        camera: The camera for the kind "camera"; the values are those of `edgekit run --camera`.
        detector: The detector for the kinds "per-frame", "loop" and "camera"; default: "yunet". Models of whole images
            use none.
        detector_model: Model file of the detector; default: downloaded once.
        detector_size_px: Longer side of the detector's input image; None: 320, or the fixed size of the file.
        seconds: Minimum time per cell, shared by its processes.
        processes: Processes per cell; an interval needs at least three.
        batch: Faces or images per iteration of "inference" and "classifier".
        seed: Determines the order of the cells.
        cool_down_s: Longest pause between processes, in which the board cools down.
        allow_throttled: Keep measurements of a throttled board instead of repeating them.
        notes: Conditions that no program detects, such as {"fan": "none"}.
        power: Called at the end with the Unix time of the start; returns a power meter's readings.
        report_name: Returns the name of a model or source in the report; default: as it is given.
        progress: Called about twice a second, and after each process.
        notify: Receives warnings.

    Raises:
        InputError: A model or an argument is invalid.
        SourceError: The source has no frames, or the camera is absent or lost.
        EdgekitError: A process ended without a result.
        IncompleteError: The benchmark failed after at least one process.

    Example:
        >>> report = edgekit.benchmark(["float.onnx", "int8.onnx"], seconds=5, kinds=["inference", "loop"])
        >>> [(cell.model, cell.kind, cell.latency.p50_ms) for cell in report.boards[0].cells]
    """
    names = [str(model) for model in ([models] if isinstance(models, str | Path) else models)]
    check_fits(names=(*names, source))
    times = (("seconds", seconds, 0.01), ("cool_down_s", cool_down_s, 0))
    for what, value, least in (*times, ("processes", processes, 1), ("batch", batch, 1)):
        if not value >= least:
            raise InputError(f"{what} is {value}: expected at least {least}")
    named = [(report_name(name), resolve_model(name, device_suffixes(name)).absolute()) for name in names]
    cells = plan_cells(named, threads, kinds)
    described = [describe_model(name, path) for name, path in named]
    board = read_board()
    uses_frames = any(kind in FRAME_KINDS for kind in kinds)
    detector_path = None if detector_model is None else Path(detector_model)
    paths = [path for _, path in named] if uses_frames else []
    choices = _detectors(paths, detector, detector_path, detector_size_px, notify)
    settings = Settings(
        seconds=seconds,
        min_iterations=MIN_ITERATIONS,
        processes=processes,
        batch=batch,
        seed=seed,
        cool_down_s=cool_down_s,
        allow_throttled=allow_throttled,
        intra_op_threads=tuple(threads or default_thread_counts()),
        # A YuNet file of fixed size has no other one.
        detector_size_px=next((choice.input_size_px for choice in choices.values()), None),
        camera=camera if "camera" in kinds else None,
    )
    _try_camera(cells, settings, choices)
    with ExitStack() as stack:
        cache = _load_cache(source, report_name, notify) if any(kind in CACHE_KINDS for kind in kinds) else None
        cache_path = stack.enter_context(shared_frame_cache(cache)) if cache else None
        plan = Plan(
            plan_rounds(cells, processes, seed),
            lambda cell: _job(cell, settings, choices.get(cell.path), cache_path),
            cool_down_s,
            allow_throttled,
        )
        started_s, started_unix_s = time.monotonic(), time.time()
        total = len(plan.order)

        def report(cell: Cell, done: float, run: Run | None) -> None:
            progress(BenchmarkProgress(cell, done, total, run.process if run else None))

        measured, ended_by = measure_all(plan, processors=board.processors, progress=report)
    if ended_by is not None and not measured:
        raise ended_by
    setup = BenchmarkSetup(board, described, cache, settings, notes or {})
    readings = power(started_unix_s)
    result = build_report(setup, measured, started_s=started_s, complete=ended_by is None, power=readings)
    if isinstance(ended_by, EdgekitError):
        raise IncompleteError(ended_by, result) from ended_by
    return result


def _detectors(
    paths: Sequence[Path],
    name: str | None,
    model_path: Path | None,
    input_size_px: int | None,
    notify: Callable[[str], None],
) -> dict[Path, DetectorChoice]:
    """Return the detector of each model that classifies faces, by model file; models of whole images have none.

    Raises:
        InputError: A detector is requested and no model is of faces, or the detector cannot be created.
    """
    faces = [path for path in paths if contract_in(path).subject == "face"]
    if not faces:
        requested = name or (str(model_path) if model_path is not None else None)
        for path in paths:
            needed_detector("image", requested, path)
        return {}
    choice = DetectorChoice(needed_detector("face", name, faces[0]), model_path, input_size_px)
    return dict.fromkeys(faces, _available(choice, notify))


def _available(choice: DetectorChoice, notify: Callable[[str], None]) -> DetectorChoice:
    """Return `choice` with the detector's own input size, or the detector that replaces one that is not available.

    The user is notified once.
    """
    detector = create_detector(
        choice.name, model_path=choice.model_path, input_size_px=choice.input_size_px, notify=notify
    )
    model_path = choice.model_path.absolute() if choice.model_path and detector.name == "yunet" else None
    size_px = detector.input_size_px if isinstance(detector, Sizable) else choice.input_size_px
    return DetectorChoice(detector.name, model_path, size_px)


def _try_camera(cells: Sequence[Cell], settings: Settings, choices: Mapping[Path, DetectorChoice]) -> None:
    """Measure one frame of the camera, if it is measured: a missing camera must not end a benchmark in the middle.

    Raises:
        EdgekitError: The camera cannot be measured.
    """
    cell = next((cell for cell in cells if cell.kind == "camera"), None)
    if cell is not None:
        job = _job(cell, settings, choices.get(cell.path), None)
        run_worker(replace(job, seconds=0.01, min_iterations=1), lambda _: None)


def _load_cache(source: str, report_name: Callable[[str], str], notify: Callable[[str], None]) -> FrameCache:
    cache = load_frame_cache(open_source(source, notify), _CACHE_LIMIT_MIB)
    cache = replace(cache, name=report_name(cache.name))
    if not cache.complete:
        notify(f"only the first {len(cache.frames)} frames of {cache.name} fit into {_CACHE_LIMIT_MIB} MiB")
    return cache


def _job(cell: Cell, settings: Settings, choice: DetectorChoice | None, cache_path: Path | None) -> Job:
    return Job(
        cell,
        seconds=settings.seconds / settings.processes,
        min_iterations=math.ceil(MIN_ITERATIONS / settings.processes),
        batch=settings.batch,
        cache_path=cache_path if cell.kind in CACHE_KINDS else None,
        detector=choice if cell.kind in FRAME_KINDS else None,
        camera=settings.camera if cell.kind == "camera" else None,
    )
