"""The runtime's main loop: source, faces, classes, sinks."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgekit.contract import Contract
from edgekit.device.detection import Detector
from edgekit.device.detections import FaceResult, FrameResult
from edgekit.device.engines.classifier import Classifier
from edgekit.device.imaging import resize
from edgekit.device.pipeline.latency import LatencyMeter
from edgekit.device.pipeline.smoothing import Smoother
from edgekit.device.pipeline.stages import Stages
from edgekit.device.sinks import Sink
from edgekit.device.sources import Frame, Source
from edgekit.device.stage_timer import StageTimer
from edgekit.device.tracking.face_tracker import Faces, FaceTracker, as_faces
from edgekit.errors import InputError
from edgekit.preprocess import FloatArray, ImageU8, crop_face, softmax

AGE = "age"
# Time a frame spends between two stages, waiting for the next one.
WAIT = "wait"


@dataclass
class _Work:
    """A frame on its way."""

    frame: Frame
    timer: StageTimer
    faces: Faces | None = None
    result: FrameResult | None = None


def run(
    source: Source,
    face_tracker: FaceTracker,
    classifier: Classifier,
    sinks: Sequence[Sink],
    meter: LatencyMeter,
    max_frames: int | None = None,
    *,
    smoother: Smoother | None = None,
    presentation_time_s: Callable[[Frame], float] = lambda frame: frame.monotonic_s,
    threaded: bool = True,
    health: Callable[[], Mapping[str, Any] | None] = lambda: None,
) -> None:
    """Take frames until the source ends, is stopped, or `max_frames` have a result; give each result to every sink.

    With `threaded`, capture, finding and classifying each work in a thread of their own, and the sinks in this one; the
    results are the same without. Between them a live source's frames give way to newer ones, others wait.

    `meter` gets each frame's stages (capture, detect or track, crop, classify, sinks, and wait: between them;
    milliseconds) and its age when the result was there. The warm-up, one pass over the first frame, is not among them.
    `capture` is waiting and decoding. `health` is asked with every result for what is new of board and process.

    Raises:
        SourceError: A live source was lost.
        InputError: The source gives nothing readable, or the model gives no numbers.
        StorageError: A sink cannot write.
    """
    with Stages(threaded, every_item=not source.live) as stages:
        captured = _warmed_up(_captured(source, max_frames), face_tracker, classifier)
        first = next(captured, None)
        if first is None:
            return
        meter.start()
        dropped_in_warm_up = source.dropped
        frames: Iterator[_Work] = itertools.chain([first], captured)
        if not source.live:  # a live one captures in a thread of its own
            frames = _ahead(stages, "capture", frames)
        found = _ahead(stages, "find", _found(frames, face_tracker))
        classified = _ahead(stages, "classify", _classified(found, classifier, smoother, presentation_time_s))
        try:
            for work in itertools.islice(classified, max_frames):
                _write(work, sinks, meter, health())
                meter.dropped_by_stage = {"capture": source.dropped - dropped_in_warm_up, **stages.dropped}
        finally:
            # Whatever ended the loop: no stage may wait for a frame any longer.
            source.stop()


def recognise(frame: Frame, detector: Detector, classifier: Classifier, timer: StageTimer) -> FrameResult:
    """Return the faces of one frame, on its own, and their classes; `timer` gets the stages detect, crop and classify.

    Raises:
        InputError: The model gives values that are no numbers.
    """
    faces = as_faces(detector.detect(frame.small_bgr))
    timer.mark("detect")
    return classify(frame, faces, classifier, timer)


def classify(
    frame: Frame,
    faces: Faces,
    classifier: Classifier,
    timer: StageTimer,
    smoother: Smoother | None = None,
    time_s: float = 0.0,
) -> FrameResult:
    """Return the result of a frame whose faces are known; `timer` gets the stages crop and classify.

    Args:
        frame: The frame.
        faces: Its faces.
        classifier: What names them, all in one batch.
        timer: Gets the times.
        smoother: Smooths each face's probabilities over time.
        time_s: The frame's time for it, seconds.

    Raises:
        InputError: The model gives values that are no numbers.
    """
    contract = classifier.contract
    crops = crop_faces(frame, faces.xyxy, contract)
    timer.mark("crop")
    logits = classifier.logits(crops)
    if not np.isfinite(logits).all():
        raise InputError(f"model '{classifier.path}' gives values that are no numbers: export it again")
    probabilities = softmax(logits)
    if smoother is None:
        best = tuple(int(index) for index in probabilities.argmax(axis=1))
    else:
        probabilities, best = smoother.smooth(probabilities, faces.track_ids, time_s)
    results = _results(faces, probabilities, best, contract.labels)
    timer.mark("classify")
    return FrameResult(
        sequence=frame.sequence,
        monotonic_s=frame.monotonic_s,
        wall_s=frame.wall_s,
        frame_wh=frame.size_wh,
        faces=results,
        stage_ms=dict(timer.ms),
        age_ms=(time.monotonic() - frame.monotonic_s) * 1e3,
        file=frame.file,
    )


def crop_faces(frame: Frame, xyxy: FloatArray, contract: Contract) -> ImageU8:
    """Return the crops of all faces of a frame as one batch: uint8 (N, H, W, 1 or 3), N may be 0."""
    size_hw = contract.input.size_hw
    if len(xyxy) == 0:
        return np.zeros((0, *size_hw, 1 if contract.crop.grayscale else 3), np.uint8)
    # A gray net needs no colours: where the camera delivers luma, none are made.
    luma = frame.luma if contract.crop.grayscale else None
    image = frame.image_bgr if luma is None else luma
    return np.stack([crop_face(image, box, contract.crop, size_hw, resize) for box in xyxy])


def _captured(source: Source, max_frames: int | None) -> Iterator[_Work]:
    timer = StageTimer()
    # Of a live source more may have to be taken: some give way to newer ones before they have a result.
    for frame in source if source.live else itertools.islice(source, max_frames):
        timer.mark("capture")
        yield _Work(frame, timer)
        timer = StageTimer()


def _warmed_up(works: Iterator[_Work], face_tracker: FaceTracker, classifier: Classifier) -> Iterator[_Work]:
    """Yield everything, the first one after a pass over it that no stage counts."""
    for index, work in enumerate(works):
        if index == 0:
            face_tracker.warm_up(work.frame)
            whole_frame = np.array([[0, 0, *work.frame.size_wh]], np.float32)
            classifier.logits(crop_faces(work.frame, whole_frame, classifier.contract))
            work.timer.skip()
        yield work


def _ahead(stages: Stages, name: str, works: Iterator[_Work]) -> Iterator[_Work]:
    """Return the works, made in a thread of their own if there are any; the time they wait for their taker counts."""
    for work in stages.ahead(name, works):
        if stages.threaded:
            work.timer.mark(WAIT)
        yield work


def _found(works: Iterable[_Work], face_tracker: FaceTracker) -> Iterator[_Work]:
    for work in works:
        work.faces = face_tracker.find(work.frame, work.timer)
        yield work


def _classified(
    works: Iterable[_Work],
    classifier: Classifier,
    smoother: Smoother | None,
    presentation_time_s: Callable[[Frame], float],
) -> Iterator[_Work]:
    for work in works:
        assert work.faces is not None
        work.result = classify(
            work.frame, work.faces, classifier, work.timer, smoother, presentation_time_s(work.frame)
        )
        yield work


def _write(work: _Work, sinks: Sequence[Sink], meter: LatencyMeter, health: Mapping[str, Any] | None) -> None:
    assert work.result is not None
    result = work.result if health is None else replace(work.result, health=health)
    for sink in sinks:
        sink.write(work.frame, result)
    work.timer.mark("sinks")
    # The first frame grew old during the warm-up.
    meter.add(work.timer.ms | ({AGE: work.result.age_ms} if meter.frames else {}))


def _results(
    faces: Faces, probabilities: FloatArray, best: Sequence[int], labels: Sequence[str]
) -> tuple[FaceResult, ...]:
    return tuple(
        FaceResult(
            xyxy=(box[0], box[1], box[2], box[3]),
            score=score,
            label=labels[index],
            probability=float(row[index]),
            probabilities=dict(zip(labels, row.tolist(), strict=True)),
            track_id=track_id,
            detected=detected,
        )
        for box, score, row, index, track_id, detected in zip(
            faces.xyxy.tolist(),
            faces.scores.tolist(),
            probabilities,
            best,
            faces.track_ids,
            faces.detected,
            strict=True,
        )
    )
