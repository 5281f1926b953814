"""Measures one cell in this process: warm-up until the times are stable, then recorded iterations.

The state of the machine (temperature, clock, throttle flags) is recorded with the iterations.

Each cell is measured in several such processes (`rounds.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from edgekit.boards import read_conditions
from edgekit.contract import Subject
from edgekit.device.benchmark.cells import Cell
from edgekit.device.benchmark.frame_cache import CachedSource, FrameCache
from edgekit.device.benchmark.loop import measure_loop
from edgekit.device.benchmark.sampling import Recorder, Run, Settling
from edgekit.device.detection import Detector
from edgekit.device.detections import Detections
from edgekit.device.engines.classifier import Classifier
from edgekit.device.frame import Frame, Source
from edgekit.device.pipeline.loop import crop_faces, recognise
from edgekit.device.stage_timer import StageTimer
from edgekit.device.tracking.face_tracker import FaceTracker
from edgekit.device.tracking.localizer import Localizer, WholeImage
from edgekit.errors import SourceError
from edgekit.preprocess import ImageU8, softmax, to_input
from edgekit.report.document import Kind, WarmUp

MIN_ITERATIONS = 100
MAX_WARM_UP_S = 10.0
_WINDOW_S = 0.1
_WINDOW_ITERATIONS = 5
# The frame of inputs that are made here, and of estimates of the loop.
FRAME_WH = (640, 480)
_FACE_XYXY = (240.0, 160.0, 400.0, 320.0)


@dataclass(frozen=True)
class Inputs:
    """Inputs of a measurement: frames in memory, an opened camera, and a factory of detectors.

    The argument of `make_detector` is the number of threads within a detection.
    """

    cache: FrameCache | None = None
    camera: Source | None = None
    make_detector: Callable[[int], Detector] | None = None


def measure(
    cell: Cell,
    inputs: Inputs = Inputs(),
    *,
    seconds: float,
    min_iterations: int = MIN_ITERATIONS,
    batch: int = 1,
    progress: Callable[[float], None] = lambda _: None,
) -> Run:
    """Measure one cell for at least `seconds` and `min_iterations` after the warm-up, in this process.

    OpenCV's number of threads is set to that of the classifier, and not reset afterwards.

    Args:
        cell: What to measure.
        inputs: The frames, camera and detector for the measurement.
        seconds: Minimum time of measured work, and maximum time of the warm-up.
        min_iterations: Minimum number of measured iterations.
        batch: Faces or images per iteration of "inference" and "classifier".
        progress: Called about twice a second, outside of the measured time, with the share done.

    Raises:
        InputError: The model cannot be loaded.
        SourceError: The camera was lost.
    """
    max_warm_up_s = min(seconds, MAX_WARM_UP_S)
    if cell.kind == "loop":
        assert inputs.cache is not None
        assert inputs.make_detector is not None
        return measure_loop(
            cell,
            inputs.cache,
            inputs.make_detector,
            seconds=seconds,
            min_iterations=min_iterations,
            max_warm_up_s=max_warm_up_s,
            progress=progress,
        )
    threads = cell.threads or 1
    cv2.setNumThreads(threads)
    loading_s = time.perf_counter()
    classifier = Classifier(cell.path, threads)
    load_ms = (time.perf_counter() - loading_s) * 1e3
    pipeline = None
    iteration: Callable[[], object]
    if cell.kind in ("inference", "classifier"):
        iteration = _classifier_iteration(classifier, cell.kind, batch)
    else:
        batch = 1
        iteration = pipeline = _Pipeline(classifier, inputs, threads, cell.kind)
    before = read_conditions()
    warm_up = _warm_up(iteration, max_warm_up_s)
    if pipeline is not None:
        pipeline.reset()
    recorder = Recorder(seconds, min_iterations, batch, progress)
    while not recorder.done:
        started_s = time.perf_counter()
        iteration()
        recorder.add((time.perf_counter() - started_s) * 1e3)
    if inputs.cache is not None:
        inputs.cache.unload()
    return Run(
        process=recorder.result(load_ms, warm_up, before, read_conditions()),
        batch=batch,
        intra_op_threads=threads,
        samples_ms=tuple(recorder.samples_ms),
        detector=pipeline.localizer.detector_name if pipeline else None,
        faces_per_frame=pipeline.faces / recorder.iterations if pipeline else None,
        stages_ms={name: tuple(times) for name, times in pipeline.stages_ms.items()} if pipeline else {},
        ages_ms=tuple(pipeline.ages_ms) if pipeline else (),
    )


def _warm_up(iteration: Callable[[], object], max_s: float) -> WarmUp:
    settling = Settling(max_s)
    while True:
        window_ms: list[float] = []
        while len(window_ms) < _WINDOW_ITERATIONS or sum(window_ms) < _WINDOW_S * 1e3:
            started_s = time.perf_counter()
            iteration()
            window_ms.append((time.perf_counter() - started_s) * 1e3)
        warm_up = settling.add_window(window_ms, len(window_ms))
        if warm_up is not None:
            return warm_up


class _Pipeline:
    """Processes the next frame with each call. With a camera, the wait for the frame is measured as a stage, too."""

    def __init__(self, classifier: Classifier, inputs: Inputs, threads: int, kind: Kind) -> None:
        self.localizer: Localizer
        if classifier.contract.subject == "image":
            self.localizer = WholeImage(None, is_sequence=True)
        else:
            assert inputs.make_detector is not None
            self.localizer = FaceTracker(inputs.make_detector(threads), None)
        self._classifier = classifier
        self._live = kind == "camera"
        frames: Iterable[Frame] | None = inputs.camera
        if not self._live:
            assert inputs.cache is not None
            frames = CachedSource(inputs.cache)
        assert frames is not None
        self._frames = iter(frames)
        self.reset()

    def reset(self) -> None:
        """Discard what has been recorded."""
        self.stages_ms: dict[str, list[float]] = {}
        self.ages_ms: list[float] = []
        self.faces = 0

    def __call__(self) -> None:
        timer = StageTimer()
        frame = next(self._frames, None)
        if frame is None:
            raise SourceError("the camera stopped during the measurement: check that it is still connected")
        timer.mark("capture") if self._live else timer.skip()
        result = recognise(frame, self.localizer, self._classifier, timer)
        for stage, time_ms in timer.ms.items():
            self.stages_ms.setdefault(stage, []).append(time_ms)
        if self._live:
            self.ages_ms.append(result.age_ms)
        self.faces += len(result.faces)


def example_boxes(subject: Subject, count: int) -> Detections:
    """Return `count` equal boxes in a frame of `FRAME_WH`: faces of 160 pixels, or for a whole image the frame."""
    box = _FACE_XYXY if subject == "face" else (0, 0, *FRAME_WH)
    xyxy = np.tile(np.array(box, np.float32), (count, 1))
    return Detections(xyxy, np.ones(count, np.float32), are_regions=subject == "image")


def _classifier_iteration(classifier: Classifier, kind: Kind, batch: int) -> Callable[[], object]:
    contract = classifier.contract
    frame = Frame(0, 0.0, 0.0, np.random.default_rng(0).integers(0, 256, (*FRAME_WH[::-1], 3), np.uint8))
    faces = example_boxes(contract.subject, batch)

    def crops() -> ImageU8:
        return crop_faces(frame, faces, contract)

    if kind == "inference":
        tensor = to_input(crops(), contract.input)
        return lambda: classifier.infer(tensor)
    return lambda: softmax(classifier.logits(crops()))
