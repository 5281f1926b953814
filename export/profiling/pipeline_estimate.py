"""Estimate of the frame rate of `edgekit run` on a board.

The loop captures each frame, runs the detector on every Nth frame and optical flow on the others, and classifies each
face in every frame or in every Nth frame. A model that classifies whole images needs neither detector nor optical flow.

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
from typing import Any

import cv2
import numpy as np

from edgekit.device.benchmark.measure import FRAME_WH, example_boxes
from edgekit.device.detection.yunet import YuNet, input_sizes
from edgekit.device.engines.classifier import Classifier
from edgekit.device.engines.session import open_session
from edgekit.device.frame import Frame
from edgekit.device.imaging import read_image, resize
from edgekit.device.pipeline.classification_schedule import choose
from edgekit.device.pipeline.loop import crop_faces
from edgekit.device.pipeline.smoothing import DEFAULT_SMOOTHING_S, smooth
from edgekit.device.stages import StageTimer
from edgekit.device.track import Classification
from edgekit.device.tracking.detection_schedule import Every
from edgekit.device.tracking.face_tracker import FaceTracker
from edgekit.export.profiling.profile import Profile, profile_file
from edgekit.export.profiling.roofline import SPREAD
from edgekit.known_boards import KnownBoard
from edgekit.model_store import asset
from edgekit.preprocess import ImageU8, softmax, to_input

_LEAST_RUNS, _LEAST_S = 25, 0.3
_FPS = 30
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

    `detector_wh` is None for a model that classifies whole images.
    """

    board: str
    threads: int
    detect_every: int
    detector_wh: tuple[int, int] | None
    faces: int
    classify_every: int
    precision: str
    parts: tuple[Part, ...]

    @property
    def middle_ms(self) -> float:
        """Estimated time per frame in ms if all parts run one after the other."""
        return sum(part.middle_ms for part in self.parts)

    @property
    def fps(self) -> tuple[float, float]:
        """Frame rate (lowest, highest) if all parts run one after the other."""
        return 1e3 / (self.middle_ms * SPREAD), 1e3 * SPREAD / self.middle_ms

    @property
    def bound_by(self) -> Part:
        """The part with the longest time per frame."""
        return max(self.parts, key=lambda part: part.middle_ms)

    @property
    def longest_stage(self) -> tuple[str, float]:
        """The stage with the longest time per frame, and that time in ms."""
        stages: dict[str, float] = {}
        for part in self.parts:
            stages[part.stage] = stages.get(part.stage, 0.0) + part.middle_ms
        return max(stages.items(), key=lambda pair: pair[1])

    @property
    def staged_fps(self) -> tuple[float, float] | None:
        """Frame rate (lowest, highest) if each stage has its own core, without contention for memory bandwidth.

        None if a net uses more than one thread.
        """
        if self.threads > 1:
            return None
        _, longest_ms = self.longest_stage
        return 1e3 / (longest_ms * SPREAD), 1e3 * SPREAD / longest_ms


def estimate_pipeline(
    classifier_profile: Profile,
    reference: Profile,
    detector_model: Path | None,
    board: KnownBoard,
    here_ms: Mapping[str, float],
    *,
    threads: int,
    detect_every: int,
    detector_size_px: int,
    faces: int,
    classify_every: int,
) -> PipelineEstimate | str:
    """Return the estimate of the loop at 640x480 on a board, or the reason why there is none.

    Args:
        classifier_profile: Profile of the classifier; its measured times are not used.
        reference: Profile of the shipped `default`.
        detector_model: YuNet's file; None for a model that classifies whole images.
        board: The board.
        here_ms: Times on this machine, from `measure_here`.
        threads: Threads of both nets on the board.
        detect_every: The detector runs on every Nth frame, optical flow on the others.
        detector_size_px: Longer side of the detector's input, if the size of this input is dynamic.
        faces: Faces per frame.
        classify_every: Each face is classified in every Nth frame.

    Raises:
        InputError: A file cannot be used.
    """
    classify = classifier_profile.on(board, threads)
    alone = reference.on(board, 1)
    if isinstance(classify, str) or isinstance(alone, str):
        return classify if isinstance(classify, str) else str(alone)
    scale = alone.middle_ms / here_ms["reference"]
    scaled = f"measured here, times {scale:.2g}"
    detector_wh: tuple[int, int] | None = None
    find_parts: tuple[Part, ...] = ()
    if detector_model is not None:
        detector_wh = _input_wh(YuNet(detector_model, detector_size_px, 0.7, intra_op_threads=1))
        detect = profile_file(detector_model, size_wh=detector_wh).on(board, threads)
        if isinstance(detect, str):
            return detect
        share = 1 / detect_every
        find_parts = (
            Part(f"detector net, 1 of {detect_every} frames", "detect", detect.middle_ms * share, "roofline"),
            Part("detector: scale and decode", "detect", here_ms["around detector"] * scale * share, scaled),
            Part("track: flow between detections", "detect", here_ms["track"] * scale * (1 - share), scaled),
        )
    net = "classifier net" if classify_every == 1 else f"classifier net, 1 of {classify_every} frames"
    cut = "faces: cut and prepare" if detector_model is not None else "image: fit and prepare"
    return PipelineEstimate(
        board=board.name,
        threads=threads,
        detect_every=detect_every,
        detector_wh=detector_wh,
        faces=faces,
        classify_every=classify_every,
        precision=classifier_profile.precision,
        parts=(
            Part("capture: colour and copy", "capture", here_ms["capture"] * scale, scaled),
            *find_parts,
            Part(cut, "classify", here_ms["prepare"] * scale, scaled),
            Part(net, "classify", classify.middle_ms * faces / classify_every, "roofline"),
        ),
    )


def measure_here(
    model: Path, detector_model: Path | None, size_px: int, faces: int, classify_every: int
) -> dict[str, float]:
    """Return the time in ms per call, on this machine with one thread, of each part that is not a net.

    The key "reference" has the time of one inference of the shipped `default`.
    """
    frames = _portraits(faces)
    yuv = cv2.cvtColor(frames[0], cv2.COLOR_BGR2YUV_I420)
    before_threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        contract = Classifier(model, 1).contract
        reference = Classifier(asset(REFERENCE), 1)
        tensor = to_input(np.zeros((1, *reference.contract.crop.center_crop_hw, 3), np.uint8), reference.contract.input)
        located = example_boxes(contract.subject, faces)
        tracked: list[Classification | None] = [None] * faces
        row, numbers = np.ones(len(contract.labels), np.float32), itertools.count()

        def prepare() -> Any:
            crops = crop_faces(Frame(0, 0.0, 0.0, frames[0]), located, contract)
            time_s = next(numbers) / _FPS
            choice = choose(crops, tracked, time_s, classify_every)
            for index, (last, is_new) in enumerate(zip(tracked, choice.due.tolist(), strict=True)):
                face = smooth(last, row, time_s, DEFAULT_SMOOTHING_S, is_new=is_new, is_cut=False)
                choice.record(index, face)
                tracked[index] = face
            softmax(np.zeros((faces, len(contract.labels)), np.float32))
            return to_input(crops, contract.input)

        return {
            "reference": _ms(lambda: reference.infer(tensor)),
            "capture": _ms(lambda: cv2.cvtColor(yuv, cv2.COLOR_YUV2BGR_I420)),
            "prepare": _ms(prepare),
            **({} if detector_model is None else _measure_detection(detector_model, size_px, frames)),
        }
    finally:
        cv2.setNumThreads(before_threads)


def _measure_detection(detector_model: Path, size_px: int, frames: list[ImageU8]) -> dict[str, float]:
    detector = YuNet(detector_model, size_px, 0.7, intra_op_threads=1)
    tensor = np.zeros((1, 3, *reversed(_input_wh(detector))), np.float32)
    net = open_session(detector_model, 1)
    name = net.get_inputs()[0].name
    whole_ms, net_ms = _ms(lambda: detector.detect(frames[0])), _ms(lambda: net.run(None, {name: tensor}))
    face_tracker = FaceTracker(detector, Every(1_000_000))
    numbers = itertools.count()

    def follow() -> Any:
        number = next(numbers)
        return face_tracker.find(Frame(number, number / _FPS, number / _FPS, frames[number % 2]), StageTimer())

    return {"around detector": max(whole_ms - net_ms, 0.0), "track": _ms(follow)}


def _input_wh(detector: YuNet) -> tuple[int, int]:
    """Return the size of the net's input for a frame of `FRAME_WH`; the edition of March 2023 has a fixed size."""
    return input_sizes(FRAME_WH, detector.input_size_px, detector.fixed_size_hw)[1]


def _portraits(faces: int) -> list[ImageU8]:
    """Return two frames that show the shipped portrait `faces` times, shifted by two pixels between the frames."""
    columns = math.ceil(math.sqrt(faces))
    side = min(FRAME_WH) // columns
    portrait = resize(read_image(asset("astronaut.png")), (side, side))
    frame = np.full((*reversed(FRAME_WH), 3), 128, np.uint8)
    for number in range(faces):
        top, left = (position * side for position in divmod(number, columns))
        frame[top : top + side, left : left + side] = portrait
    return [frame, np.ascontiguousarray(np.roll(frame, 2, axis=1))]


def _ms(function: Callable[[], object]) -> float:
    """Return the shortest time of many calls in ms; other programs disturb the shortest call least."""
    least_s = math.inf
    runs, until_s = 0, time.perf_counter() + _LEAST_S
    while runs < _LEAST_RUNS or time.perf_counter() < until_s:
        started_s = time.perf_counter()
        function()
        least_s = min(least_s, time.perf_counter() - started_s)
        runs += 1
    return least_s * 1e3
