"""How fast models are on this machine: the classifier alone and the whole pipeline, cell by cell.

A cell is one model with one number of threads doing one kind of work, in a session of its own. Cells run in an order
shuffled by a seed, so that a machine that gets hot or busy does not always slow the same ones. Warm-up is left out.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np

from edgekit.boards import Conditions, read_conditions
from edgekit.device.classify import Classifier
from edgekit.device.detect import Detector
from edgekit.device.engines import set_opencv_threads
from edgekit.device.imaging import resize
from edgekit.device.meter import Laps, LatencySummary, Meter, summarize
from edgekit.device.pipeline import recognise
from edgekit.device.sources import Frame, Source
from edgekit.errors import InputError, SourceError
from edgekit.preprocess import ImageU8, crop_face, softmax, to_tensor

Kind: TypeAlias = Literal["inference", "classifier", "pipeline"]
KINDS: tuple[Kind, ...] = get_args(Kind)

MIN_ITERATIONS = 100
_WARM_UP_SHARE = 0.2
_WARM_UP_MAX_S = 2.0
_WARM_UP_MIN_ITERATIONS = 10
_PROGRESS_EVERY_S = 0.5
_FRAME_WH = (640, 480)
_FACE_XYXY = (240.0, 160.0, 400.0, 320.0)


@dataclass(frozen=True)
class Cell:
    """One thing to measure.

    Kinds: "inference" is the net alone, its input prepared; "classifier" cuts and prepares the faces too and ends with
    probabilities; "pipeline" takes frames from memory and also finds the faces.
    """

    model: str
    path: Path
    intra_op_threads: int
    kind: Kind


@dataclass(frozen=True)
class Measurement:
    """What one cell gave.

    `latency` is of one iteration: a batch of `batch` faces, in a pipeline one frame. `images_per_s` counts faces, in a
    pipeline frames. `load_ms` is the time to read the file and build the session. `detector`, `faces_per_frame` and
    `stages` are a pipeline's.
    """

    cell: Cell
    batch: int
    load_ms: float
    warm_up_iterations: int
    busy_s: float
    latency: LatencySummary
    images_per_s: float
    resident_mib: float
    before: Conditions
    after: Conditions
    detector: str | None
    faces_per_frame: float | None
    stages: dict[str, LatencySummary]


@dataclass(frozen=True)
class Clip:
    """Frames held in memory, so that decoding is not measured; `sha256` is of their pixels.

    `complete` is False where the source has more frames than the limit let in.
    """

    name: str
    frames: tuple[ImageU8, ...]
    complete: bool
    mib: float
    sha256: str


def plan_cells(
    models: Sequence[tuple[str, Path]], thread_counts: Sequence[int], kinds: Sequence[Kind], seed: int
) -> list[Cell]:
    """Return every combination once, in an order that the seed decides.

    Raises:
        InputError: A model or a thread count is given twice, or a thread count is below 1.
    """
    names = [name for name, _ in models]
    for what, values in (("model", names), ("thread count", thread_counts)):
        twice = {str(value) for value in values if list(values).count(value) > 1}
        if twice:
            raise InputError(f"{what} given twice: {', '.join(sorted(twice))}")
    if min(thread_counts) < 1:
        raise InputError(f"thread count {min(thread_counts)} is below 1")
    cells = [Cell(name, path, threads, kind) for name, path in models for threads in thread_counts for kind in kinds]
    random.Random(seed).shuffle(cells)  # noqa: S311 (an order, not a secret)
    return cells


def load_clip(source: Source, limit_mib: int) -> Clip:
    """Return a source's frames, as many as fit into the limit; the source is closed.

    Raises:
        SourceError: It gives no frame.
    """
    frames: list[ImageU8] = []
    digest = hashlib.sha256()
    size_bytes = 0
    complete = True
    with source:
        for frame in source:
            if frames and size_bytes + frame.image_bgr.nbytes > limit_mib << 20:
                complete = False
                break
            frames.append(frame.image_bgr)
            size_bytes += frame.image_bgr.nbytes
            digest.update(np.ascontiguousarray(frame.image_bgr).data)
    if not frames:
        raise SourceError(f"source '{source.name}' gave no frame")
    return Clip(source.name, tuple(frames), complete, size_bytes / (1 << 20), digest.hexdigest())


def measure(
    cell: Cell,
    *,
    seconds: float,
    batch: int,
    clip: Clip | None = None,
    make_detector: Callable[[int], Detector] | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> Measurement:
    """Measure one cell for at least `seconds` and `MIN_ITERATIONS` iterations after the warm-up.

    OpenCV gets as many threads as the classifier, and keeps them.

    Args:
        cell: What to measure.
        seconds: Least time of measured work.
        batch: Faces in one iteration of "inference" and "classifier".
        clip: Frames of a pipeline, played over and over.
        make_detector: Makes a pipeline's detector for a number of threads.
        progress: Called now and then, outside the measured time, with the share done.

    Raises:
        InputError: The model cannot be loaded.
    """
    set_opencv_threads(cell.intra_op_threads)
    started_s = time.perf_counter()
    classifier = Classifier(cell.path, cell.intra_op_threads)
    load_ms = (time.perf_counter() - started_s) * 1e3
    pipeline = None
    work: Callable[[], object]
    if cell.kind == "pipeline":
        assert clip is not None
        assert make_detector is not None
        batch = 1
        work = pipeline = _Pipeline(classifier, make_detector(cell.intra_op_threads), clip)
    else:
        work = _classifier_work(classifier, cell.kind, batch)
    before = read_conditions()
    warm_up_iterations = _warm_up(work, min(_WARM_UP_SHARE * seconds, _WARM_UP_MAX_S))
    if pipeline is not None:
        pipeline.forget()
    samples_ms = _samples_ms(work, seconds, progress)
    busy_s = sum(samples_ms) / 1e3
    return Measurement(
        cell=cell,
        batch=batch,
        load_ms=load_ms,
        warm_up_iterations=warm_up_iterations,
        busy_s=busy_s,
        latency=summarize(samples_ms),
        images_per_s=batch * len(samples_ms) / busy_s,
        resident_mib=resident_mib(),
        before=before,
        after=read_conditions(),
        detector=pipeline.detector.name if pipeline else None,
        faces_per_frame=pipeline.faces / pipeline.meter.frames if pipeline else None,
        stages=pipeline.meter.stages() if pipeline else {},
    )


def resident_mib() -> float:
    """Return the memory of this process that is in RAM now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / (1 << 20)


def peak_resident_mib() -> float:
    """Return the most memory this process has had in RAM."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _warm_up(work: Callable[[], object], seconds: float) -> int:
    iterations = 0
    until_s = time.perf_counter() + seconds
    while iterations < _WARM_UP_MIN_ITERATIONS or time.perf_counter() < until_s:
        work()
        iterations += 1
    return iterations


def _samples_ms(work: Callable[[], object], seconds: float, progress: Callable[[float], None]) -> list[float]:
    samples_ms: list[float] = []
    busy_s = 0.0
    next_report_s = 0.0
    while len(samples_ms) < MIN_ITERATIONS or busy_s < seconds:
        started_s = time.perf_counter()
        work()
        took_s = time.perf_counter() - started_s
        samples_ms.append(took_s * 1e3)
        busy_s += took_s
        if busy_s >= next_report_s:
            progress(min(busy_s / seconds, len(samples_ms) / MIN_ITERATIONS, 1.0))
            next_report_s = busy_s + _PROGRESS_EVERY_S
    progress(1.0)
    return samples_ms


class _Pipeline:
    """Recognises the next frame of a clip each time it is called; a clip that ends starts again."""

    def __init__(self, classifier: Classifier, detector: Detector, clip: Clip) -> None:
        self._classifier = classifier
        self._frames = itertools.cycle(clip.frames)
        self._sequence = itertools.count()
        self.detector = detector
        self.forget()

    def forget(self) -> None:
        """Count from zero again."""
        self.meter = Meter()
        self.faces = 0

    def __call__(self) -> None:
        laps = Laps()
        frame = Frame(next(self._sequence), time.monotonic(), time.time(), next(self._frames))
        result = recognise(frame, self.detector, self._classifier, laps)
        self.meter.add(laps.ms)
        self.faces += len(result.faces)


def _classifier_work(classifier: Classifier, kind: Kind, batch: int) -> Callable[[], object]:
    contract = classifier.contract
    frame_bgr = np.random.default_rng(0).integers(0, 256, (*_FRAME_WH[::-1], 3), np.uint8)

    def crops() -> ImageU8:
        one = [crop_face(frame_bgr, _FACE_XYXY, contract.crop, contract.input.size_hw, resize) for _ in range(batch)]
        return np.stack(one)

    if kind == "inference":
        tensor = to_tensor(crops(), contract.input)
        return lambda: classifier.infer(tensor)
    return lambda: softmax(classifier.logits(crops()))
