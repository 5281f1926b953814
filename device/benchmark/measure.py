"""How fast a cell is on this machine, measured in this process: the classifier alone, or the whole pipeline.

Warm-up until the times are stable, then iterations one after the other, the machine watched between them. A cell is
measured in several such processes (`benchmark_runs`).
"""

from __future__ import annotations

import itertools
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.boards import Conditions, read_conditions
from edgekit.device.benchmark.cells import FRAME_KINDS, Cell, Kind
from edgekit.device.benchmark.frame_cache import FrameCache
from edgekit.device.benchmark.machine_watch import OthersLoad, Reading, Watch
from edgekit.device.detection import Detector
from edgekit.device.engines.classifier import Classifier
from edgekit.device.engines.versions import set_opencv_threads
from edgekit.device.imaging import resize
from edgekit.device.pipeline.latency import summarize
from edgekit.device.pipeline.loop import recognise
from edgekit.device.sources import Frame, Source
from edgekit.device.stage_timer import StageTimer
from edgekit.errors import SourceError
from edgekit.preprocess import ImageU8, crop_face, softmax, to_input
from edgekit.report.statistics import is_stable

MIN_ITERATIONS = 100
_WARM_UP_MAX_S = 10.0
_WARM_UP_WINDOW_S = 0.1
_WARM_UP_WINDOW_ITERATIONS = 5
_PROGRESS_EVERY_S = 0.5
_WATCH_EVERY_S = 1.0
_WATCH_MOST = 200
_FRAME_WH = (640, 480)
_FACE_XYXY = (240.0, 160.0, 400.0, 320.0)


@dataclass(frozen=True)
class WarmUp:
    """What ran before anything counted; `stable` is False where the times were still moving when patience ended."""

    iterations: int
    seconds: float
    stable: bool


@dataclass(frozen=True)
class Run:
    """What one process measured of one cell.

    `samples_ms` are the iterations in their order: a batch of `batch` faces, in a pipeline one frame. `images_per_s`
    counts faces, in a pipeline frames. `ages_ms` are a camera's: from the capture of each frame to its result.
    `started_s` is on the system's monotonic clock. `load_ms` is the time to read the file and build the session.
    `others_processors` is how many processors other programs used. `detector`, `faces_per_frame` and `stages_ms` are a
    pipeline's and a camera's.
    """

    batch: int
    started_s: float
    elapsed_s: float
    load_ms: float
    warm_up: WarmUp
    samples_ms: tuple[float, ...]
    resident_mib: float
    others_processors: float | None
    before: Conditions
    during: tuple[Reading, ...]
    after: Conditions
    detector: str | None
    faces_per_frame: float | None
    stages_ms: dict[str, tuple[float, ...]]
    ages_ms: tuple[float, ...] = ()

    @property
    def busy_s(self) -> float:
        """Seconds spent in iterations."""
        return sum(self.samples_ms) / 1e3

    @property
    def images_per_s(self) -> float:
        """Faces, in a pipeline frames, in a second of iterations."""
        return self.batch * len(self.samples_ms) / self.busy_s

    def as_message(self) -> dict[str, Any]:
        """Return it for another process: the raw times, and `process`, the part that goes into a report."""
        latency = asdict(summarize(self.samples_ms))
        process = {
            "elapsed_s": round(self.elapsed_s, 3),
            "busy_s": round(self.busy_s, 3),
            "load_ms": round(self.load_ms, 3),
            "warm_up": asdict(self.warm_up) | {"seconds": round(self.warm_up.seconds, 3)},
            "latency": {name: round(value, 4) for name, value in latency.items()},
            "images_per_s": round(self.images_per_s, 3),
            "resident_mib": round(self.resident_mib, 1),
            "others_processors": self.others_processors,
            "before": self.before.as_document(),
            "during": [asdict(reading) for reading in self.during],
            "after": self.after.as_document(),
        }
        return {
            "process": process,
            "batch": self.batch,
            "started_s": self.started_s,
            "samples_ms": [round(sample, 5) for sample in self.samples_ms],
            "detector": self.detector,
            "faces_per_frame": self.faces_per_frame,
            "stages_ms": {name: [round(lap, 5) for lap in timer] for name, timer in self.stages_ms.items()},
            "ages_ms": [round(age, 3) for age in self.ages_ms],
        }


def measure(
    cell: Cell,
    *,
    seconds: float,
    min_iterations: int = MIN_ITERATIONS,
    batch: int,
    clip: FrameCache | None = None,
    camera: Source | None = None,
    make_detector: Callable[[int], Detector] | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> Run:
    """Measure one cell for at least `seconds` and `min_iterations` after the warm-up, in this process.

    OpenCV gets as many threads as the classifier, and keeps them.

    Args:
        cell: What to measure.
        seconds: Least time of measured work; the warm-up takes no longer.
        min_iterations: Least number of measured iterations.
        batch: Faces in one iteration of "inference" and "classifier".
        clip: Frames of a pipeline, played over and over.
        camera: An opened camera, for "camera".
        make_detector: Makes a pipeline's detector for a number of threads.
        progress: Called now and then, outside the measured time, with the share done.

    Raises:
        InputError: The model cannot be loaded.
        SourceError: The camera was lost.
    """
    set_opencv_threads(cell.intra_op_threads)
    loading_s = time.perf_counter()
    classifier = Classifier(cell.path, cell.intra_op_threads)
    load_ms = (time.perf_counter() - loading_s) * 1e3
    pipeline = None
    work: Callable[[], object]
    if cell.kind in FRAME_KINDS:
        assert make_detector is not None
        batch = 1
        detector = make_detector(cell.intra_op_threads)
        if cell.kind == "camera":
            assert camera is not None
            work = pipeline = _Pipeline(classifier, detector, camera, live=True)
        else:
            assert clip is not None
            work = pipeline = _Pipeline(classifier, detector, _frames(clip), live=False)
    else:
        work = _classifier_work(classifier, cell.kind, batch)
    before = read_conditions()
    warm_up = _warm_up(work, min(seconds, _WARM_UP_MAX_S))
    if pipeline is not None:
        pipeline.forget()
    others = OthersLoad()
    watch = Watch(max(_WATCH_EVERY_S, seconds / _WATCH_MOST), batch)
    samples_ms = _samples_ms(work, seconds, min_iterations, watch, progress)
    return Run(
        batch=batch,
        started_s=watch.started_s,
        elapsed_s=time.monotonic() - watch.started_s,
        load_ms=load_ms,
        warm_up=warm_up,
        samples_ms=tuple(samples_ms),
        resident_mib=resident_mib(),
        others_processors=others.processors(),
        before=before,
        during=tuple(watch.readings),
        after=read_conditions(),
        detector=pipeline.detector.name if pipeline else None,
        faces_per_frame=pipeline.faces / len(samples_ms) if pipeline else None,
        stages_ms={name: tuple(timer) for name, timer in pipeline.laps_ms.items()} if pipeline else {},
        ages_ms=tuple(pipeline.ages_ms) if pipeline else (),
    )


def resident_mib() -> float:
    """Return the memory of this process that is in RAM now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / (1 << 20)


def _warm_up(work: Callable[[], object], longest_s: float) -> WarmUp:
    started_s = time.perf_counter()
    iterations = 0
    medians_ms: list[float] = []
    while not is_stable(medians_ms):
        if medians_ms and time.perf_counter() - started_s > longest_s:
            return WarmUp(iterations, time.perf_counter() - started_s, stable=False)
        window_ms: list[float] = []
        while len(window_ms) < _WARM_UP_WINDOW_ITERATIONS or sum(window_ms) < _WARM_UP_WINDOW_S * 1e3:
            began_s = time.perf_counter()
            work()
            window_ms.append((time.perf_counter() - began_s) * 1e3)
        iterations += len(window_ms)
        medians_ms.append(float(np.median(window_ms)))
    return WarmUp(iterations, time.perf_counter() - started_s, stable=True)


def _samples_ms(
    work: Callable[[], object], seconds: float, min_iterations: int, watch: Watch, progress: Callable[[float], None]
) -> list[float]:
    samples_ms: list[float] = []
    busy_s = 0.0
    next_report_s = 0.0
    while len(samples_ms) < min_iterations or busy_s < seconds:
        started_s = time.perf_counter()
        work()
        took_s = time.perf_counter() - started_s
        samples_ms.append(took_s * 1e3)
        busy_s += took_s
        if busy_s >= next_report_s:
            progress(min(busy_s / seconds, len(samples_ms) / min_iterations, 1.0))
            next_report_s = busy_s + _PROGRESS_EVERY_S
        watch.tick(len(samples_ms), busy_s)
    watch.tick(len(samples_ms), busy_s, last=True)
    progress(1.0)
    return samples_ms


def _frames(clip: FrameCache) -> Iterator[Frame]:
    """Yield a clip's frames, again and again."""
    for sequence, image_bgr in enumerate(itertools.cycle(clip.frames)):
        yield Frame(sequence, time.monotonic(), time.time(), image_bgr)


class _Pipeline:
    """Recognises the next frame each time it is called; of a live source, getting the frame is a stage too."""

    def __init__(self, classifier: Classifier, detector: Detector, frames: Iterable[Frame], live: bool) -> None:
        self._classifier = classifier
        self._frames = iter(frames)
        self._live = live
        self.detector = detector
        self.forget()

    def forget(self) -> None:
        """Count from zero again."""
        self.laps_ms: dict[str, list[float]] = {}
        self.ages_ms: list[float] = []
        self.faces = 0

    def __call__(self) -> None:
        timer = StageTimer()
        frame = next(self._frames, None)
        if frame is None:
            raise SourceError("the camera stopped while it was measured: is it still plugged in?")
        timer.mark("capture") if self._live else timer.skip()
        result = recognise(frame, self.detector, self._classifier, timer)
        for stage, lap_ms in timer.ms.items():
            self.laps_ms.setdefault(stage, []).append(lap_ms)
        if self._live:
            self.ages_ms.append(result.age_ms)
        self.faces += len(result.faces)


def _classifier_work(classifier: Classifier, kind: Kind, batch: int) -> Callable[[], object]:
    contract = classifier.contract
    frame_bgr = np.random.default_rng(0).integers(0, 256, (*_FRAME_WH[::-1], 3), np.uint8)

    def crops() -> ImageU8:
        one = [crop_face(frame_bgr, _FACE_XYXY, contract.crop, contract.input.size_hw, resize) for _ in range(batch)]
        return np.stack(one)

    if kind == "inference":
        tensor = to_input(crops(), contract.input)
        return lambda: classifier.infer(tensor)
    return lambda: softmax(classifier.logits(crops()))
