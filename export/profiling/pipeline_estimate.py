"""Estimate of the frame rate of `edgekit run` on a board, for one face.

The loop captures each frame, runs the detector on every fifth frame and optical flow on the others, and classifies the
face in every frame. A model that classifies whole images needs neither detector nor optical flow.

Nets are estimated by the board's roofline. All other parts are measured on this machine with one thread and scaled by a
factor. The factor is the one-thread estimate of the shipped `default` on the board, divided by its time here, which is
measured in the same way. It is therefore the same for all models.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edgekit.device.benchmark.measure import FRAME_WH, example_boxes
from edgekit.device.detection.yunet import YuNet, input_sizes
from edgekit.device.engines.classifier import Classifier
from edgekit.device.engines.session import open_session
from edgekit.device.frame import Frame
from edgekit.device.imaging import read_image, resize
from edgekit.device.pipeline.loop import crop_faces
from edgekit.device.region import DEFAULT_INPUT_SIZE_PX
from edgekit.device.stages import StageTimer
from edgekit.device.tracking import FaceTracker
from edgekit.device.tracking.detection_schedule import Every
from edgekit.export.profiling.profile import Profile, profile_file
from edgekit.export.profiling.roofline import SPREAD, BoardEstimate
from edgekit.known_boards import KnownBoard
from edgekit.model_store import asset
from edgekit.preprocess import ImageU8, to_input

_LEAST_RUNS, _LEAST_S = 25, 0.3
_FPS = 30
_DETECT_EVERY = 5
# The net by which this machine is compared with a board.
REFERENCE = "default.onnx"


@dataclass(frozen=True)
class Part:
    """A part of the loop: its pipeline stage, its estimated time per frame, and the basis of the estimate."""

    name: str
    stage: str
    middle_ms: float
    basis: str


@dataclass(frozen=True)
class PipelineEstimate:
    """Estimate of the loop on a board; `fps` and `staged_fps` are (lowest, highest) frames per second.

    `detector_wh` is the size of the detector's input; None for a model that classifies whole images.
    """

    threads: int
    detector_wh: tuple[int, int] | None
    precision: str
    parts: tuple[Part, ...]

    @property
    def middle_ms(self) -> float:
        """Estimated time per frame in ms if all parts run one after the other."""
        return sum(part.middle_ms for part in self.parts)

    @property
    def fps(self) -> tuple[float, float]:
        """Frame rate (lowest, highest) if all parts run one after the other."""
        return _fps(self.middle_ms)

    @property
    def bound_by(self) -> Part:
        """The part with the longest time per frame."""
        return max(self.parts, key=lambda part: part.middle_ms)

    @property
    def longest_stage(self) -> tuple[str, float]:
        """The stage with the longest time per frame, and that time in ms."""
        times = {part.stage: 0.0 for part in self.parts}
        for part in self.parts:
            times[part.stage] += part.middle_ms
        return max(times.items(), key=lambda pair: pair[1])

    @property
    def staged_fps(self) -> tuple[float, float] | None:
        """Frame rate (lowest, highest) if each stage has its own core, without contention for memory bandwidth.

        None if a net uses more than one thread, because the stages then share cores.
        """
        return None if self.threads > 1 else _fps(self.longest_stage[1])


def _fps(middle_ms: float) -> tuple[float, float]:
    """Return the lowest and the highest frame rate: the time per frame may be `SPREAD` times as long or as short."""
    return 1e3 / (middle_ms * SPREAD), 1e3 * SPREAD / middle_ms


@dataclass(frozen=True)
class Loop:
    """What the estimates of the loop on all boards have in common.

    `reference` is the profile of the shipped `default`. `detector` and `detector_wh`, the size of its input, are None
    for a model that classifies whole images. `here_ms` has the time per call on this machine, with one thread, of each
    part that is not a net, and of one inference of `default` ("reference").
    """

    classifier: Profile
    reference: Profile
    detector: Profile | None
    detector_wh: tuple[int, int] | None
    here_ms: Mapping[str, float]

    def on(self, board: KnownBoard, threads: int) -> BoardEstimate[PipelineEstimate]:
        """Estimate the time per frame of each part of the loop on a board, with both nets on one or four threads.

        Nets are estimated by the board's roofline. The times of all other parts here are multiplied by `slowdown`, the
        time of the reference net on the board divided by its time here.
        """
        classifier = self.classifier.on(board, threads)
        reference = self.reference.on(board, threads=1)  # as it was measured here
        detector = self.detector.on(board, threads) if self.detector else None
        reason = classifier.reason or reference.reason or (detector.reason if detector else None)
        if reason or not classifier.estimate or not reference.estimate:  # without an estimate there is a reason
            return BoardEstimate(board, threads, estimate=None, reason=reason)
        slowdown = reference.estimate.middle_ms / self.here_ms["reference"]
        parts = [self._measured("capture: colour and copy", stage="capture", key="capture", slowdown=slowdown)]
        share = 1 / _DETECT_EVERY  # of the frames
        if detector and detector.estimate:
            net_ms = detector.estimate.middle_ms * share
            parts += [
                Part(f"detector net, 1 of {_DETECT_EVERY} frames", "detect", net_ms, "roofline"),
                self._measured("detector: scale and decode", "detect", "around detector", slowdown, share),
                self._measured("track: flow between detections", "detect", "track", slowdown, 1 - share),
            ]
        cut = "face: cut and prepare" if detector else "image: fit and prepare"
        parts.append(self._measured(cut, "classify", "prepare", slowdown))
        parts.append(Part("classifier net", "classify", classifier.estimate.middle_ms, "roofline"))
        estimate = PipelineEstimate(threads, self.detector_wh, self.classifier.precision, tuple(parts))
        return BoardEstimate(board, threads, estimate)

    def _measured(self, name: str, stage: str, key: str, slowdown: float, share_of_frames: float = 1.0) -> Part:
        """Return a part that is not a net: its time here, `here_ms[key]`, scaled to a board."""
        middle_ms = self.here_ms[key] * slowdown * share_of_frames
        return Part(name, stage, middle_ms, f"measured here, times {slowdown:.2g}")


def measure_loop(model: Path, classifier: Profile, detector_model: Path | None) -> Loop:
    """Measure the parts of the loop that are not nets on this machine, for frames of 640x480, and profile the nets.

    The measurement limits OpenCV to one thread, because the reference net runs on one thread, too: `Loop.on` scales the
    times of OpenCV by the time of the reference net.

    Args:
        model: The classifier's file.
        classifier: Its profile.
        detector_model: YuNet's file; None for a model that classifies whole images.

    Raises:
        InputError: The detector's file cannot be profiled.
    """
    opencv_threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        here_ms = _measure_here(model, detector_model)
    finally:
        cv2.setNumThreads(opencv_threads)
    detector = detector_wh = None
    if detector_model is not None:
        detector_wh = _input_wh(_yunet(detector_model))
        detector = profile_file(detector_model, detector_wh)
    return Loop(classifier, profile_file(asset(REFERENCE)), detector, detector_wh, here_ms)


def _measure_here(model: Path, detector_model: Path | None) -> dict[str, float]:
    """Return `Loop.here_ms`: the time per call of each part that is not a net, and of the reference net.

    `detector_model` is None for a model that classifies whole images.
    """
    frames = _portraits()
    # The format in which picamera2 delivers frames: capturing converts it to B, G, R.
    yuv = cv2.cvtColor(frames[0], cv2.COLOR_BGR2YUV_I420)
    contract = Classifier(model, intra_op_threads=1).contract
    reference = Classifier(asset(REFERENCE), intra_op_threads=1)
    blank_crop = np.zeros((1, *reference.contract.crop.center_crop_hw, 3), np.uint8)
    tensor = to_input(blank_crop, reference.contract.input)
    frame = Frame(0, 0.0, 0.0, frames[0])  # its number and times have no effect
    boxes = example_boxes(contract.subject, count=1)
    found = {
        "reference": _ms(lambda: reference.infer(tensor)),
        "capture": _ms(lambda: cv2.cvtColor(yuv, cv2.COLOR_YUV2BGR_I420)),
        "prepare": _ms(lambda: to_input(crop_faces(frame, boxes, contract), contract.input)),
    }
    return found if detector_model is None else found | _measure_detector(detector_model, frames)


def _measure_detector(model: Path, frames: list[ImageU8]) -> dict[str, float]:
    """Return the times of the detector without its net, and of the optical flow between two frames."""
    detector, net = _yunet(model), open_session(model, intra_op_threads=1)
    width, height = _input_wh(detector)
    feed = {net.get_inputs()[0].name: np.zeros((1, 3, height, width), np.float32)}
    whole_ms = _ms(lambda: detector.detect(frames[0]))
    net_ms = _ms(lambda: net.run(None, feed))  # None: all outputs
    # The tracker detects in the first frame only: all other calls are optical flow.
    face_tracker = FaceTracker(detector, Every(1_000_000))  # more frames than `_ms` measures
    numbers = itertools.count()

    def track() -> object:
        """Follow the face into the other one of the two frames."""
        number = next(numbers)
        return face_tracker.find(Frame(number, number / _FPS, number / _FPS, frames[number % 2]), StageTimer())

    # Two measurements: their difference could be below 0.
    return {"around detector": max(whole_ms - net_ms, 0.0), "track": _ms(track)}


def _yunet(detector_model: Path) -> YuNet:
    return YuNet(detector_model, DEFAULT_INPUT_SIZE_PX, score_threshold=0.7, intra_op_threads=1)


def _input_wh(detector: YuNet) -> tuple[int, int]:
    """Return the size of the net's input for a frame of `FRAME_WH`; the edition of March 2023 has a fixed size."""
    return input_sizes(FRAME_WH, detector.input_size_px, detector.fixed_size_hw)[1]


def _portraits() -> list[ImageU8]:
    """Return two frames with the shipped portrait, which is shifted by two pixels between them."""
    side = min(FRAME_WH)
    frame = np.full((*reversed(FRAME_WH), 3), 128, np.uint8)
    frame[:, :side] = resize(read_image(asset("astronaut.png")), (side, side))
    return [frame, np.ascontiguousarray(np.roll(frame, 2, axis=1))]


def _ms(function: Callable[[], object]) -> float:
    """Return the shortest time of many calls in ms; other programs disturb the shortest call least.

    There are at least `_LEAST_RUNS` calls, and they take at least `_LEAST_S`.
    """
    shortest_s, runs, until_s = math.inf, 0, time.perf_counter() + _LEAST_S
    while runs < _LEAST_RUNS or time.perf_counter() < until_s:
        started_s = time.perf_counter()
        function()
        shortest_s = min(shortest_s, time.perf_counter() - started_s)
        runs += 1
    return shortest_s * 1e3
