"""The runtime's main loop: source, detector, crops, classifier, sinks."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence

import numpy as np

from edgekit.contract import Contract
from edgekit.device.classify import Classifier
from edgekit.device.detect import Detections, Detector
from edgekit.device.imaging import resize
from edgekit.device.meter import Laps, Meter
from edgekit.device.results import FaceResult, FrameResult
from edgekit.device.sinks import Sink
from edgekit.device.sources import Frame, Source
from edgekit.errors import InputError
from edgekit.preprocess import FloatArray, ImageU8, crop_face, softmax

AGE = "age"


def run(
    source: Source,
    detector: Detector,
    classifier: Classifier,
    sinks: Sequence[Sink],
    meter: Meter,
    max_frames: int | None = None,
) -> None:
    """Take frames until the source ends, is stopped, or gave `max_frames`; give each one's result to every sink.

    `meter` gets each frame's stages (capture, detect, crop, classify, sinks; milliseconds) and its age when the result
    was there. The warm-up, one pass over the first frame, is not among them. `capture` is waiting and decoding.

    Raises:
        SourceError: A live source was lost.
        InputError: The source gives nothing readable, or the model gives no numbers.
        StorageError: A sink cannot write.
    """
    dropped_in_warm_up = 0
    for frame, laps in _captured(source, detector, classifier, meter, max_frames):
        if meter.frames == 0:
            dropped_in_warm_up = source.dropped
        result = recognise(frame, detector, classifier, laps)
        for sink in sinks:
            sink.write(frame, result)
        laps.lap("sinks")
        # The first frame grew old during the warm-up.
        meter.add(laps.ms | ({AGE: result.age_ms} if meter.frames else {}))
        meter.dropped = source.dropped - dropped_in_warm_up


def recognise(frame: Frame, detector: Detector, classifier: Classifier, laps: Laps) -> FrameResult:
    """Return the faces of one frame and their classes; `laps` gets the stages detect, crop and classify.

    Raises:
        InputError: The model gives values that are no numbers.
    """
    detections = detector.detect(frame.image_bgr)
    laps.lap("detect")
    crops = crop_faces(frame.image_bgr, detections.xyxy, classifier.contract)
    laps.lap("crop")
    logits = classifier.logits(crops)
    if not np.isfinite(logits).all():
        raise InputError(f"model '{classifier.path}' gives values that are no numbers: export it again")
    faces = _faces(detections, softmax(logits), classifier.contract.labels)
    laps.lap("classify")
    return FrameResult(
        sequence=frame.sequence,
        monotonic_s=frame.monotonic_s,
        wall_s=frame.wall_s,
        frame_wh=(frame.image_bgr.shape[1], frame.image_bgr.shape[0]),
        faces=faces,
        stage_ms=dict(laps.ms),
        age_ms=(time.monotonic() - frame.monotonic_s) * 1e3,
    )


def crop_faces(image_bgr: ImageU8, xyxy: FloatArray, contract: Contract) -> ImageU8:
    """Return the crops of all faces of a frame as one batch: uint8 (N, H, W, 1 or 3), N may be 0."""
    size_hw = contract.input.size_hw
    if len(xyxy) == 0:
        return np.zeros((0, *size_hw, 1 if contract.crop.grayscale else 3), np.uint8)
    return np.stack([crop_face(image_bgr, box, contract.crop, size_hw, resize) for box in xyxy])


def _captured(
    source: Source, detector: Detector, classifier: Classifier, meter: Meter, max_frames: int | None
) -> Iterator[tuple[Frame, Laps]]:
    """Yield each frame with its laps, `capture` done; the first one after a warm-up that no stage counts."""
    laps = Laps()
    for index, frame in enumerate(itertools.islice(source, max_frames)):
        laps.lap("capture")
        if index == 0:
            _warm_up(frame, detector, classifier)
            laps.skip()
            meter.start()
        yield frame, laps
        laps = Laps()


def _warm_up(frame: Frame, detector: Detector, classifier: Classifier) -> None:
    detector.detect(frame.image_bgr)
    whole_frame = np.array([[0, 0, frame.image_bgr.shape[1], frame.image_bgr.shape[0]]], np.float32)
    classifier.logits(crop_faces(frame.image_bgr, whole_frame, classifier.contract))


def _faces(detections: Detections, probabilities: FloatArray, labels: Sequence[str]) -> tuple[FaceResult, ...]:
    faces = []
    for box, score, row in zip(detections.xyxy.tolist(), detections.scores.tolist(), probabilities, strict=True):
        best = int(row.argmax())
        faces.append(
            FaceResult(
                xyxy=(box[0], box[1], box[2], box[3]),
                score=score,
                label=labels[best],
                probability=float(row[best]),
                probabilities=dict(zip(labels, row.tolist(), strict=True)),
            )
        )
    return tuple(faces)
