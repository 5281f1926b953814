"""The main loop: source → detection and tracking → classification → results."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from edgekit.contract import Contract
from edgekit.device.controls import Controls
from edgekit.device.detections import Classification, Detections, FrameResult, crop_boxes
from edgekit.device.engines.classifier import Classifier
from edgekit.device.frame import Frame, Source
from edgekit.device.imaging import resize
from edgekit.device.pipeline.classification_schedule import Choice, ClassifyEvery, choose
from edgekit.device.pipeline.smoothing import check_crop, check_threshold, is_uncertain, smooth
from edgekit.device.pipeline.summary import LatencyMeter
from edgekit.device.stages import Stages, StageTimer
from edgekit.device.tracking import Localizer
from edgekit.preprocess import ImageU8, crop_face, crop_image

AGE = "age"
# Stage name of the time a frame waits between two stages.
WAIT = "wait"
# A face that was absent for longer starts without history.
_FORGET_S = 2.0


@dataclass
class _InFlight:
    """A frame in flight, with what the stages have added to it."""

    frame: Frame
    timer: StageTimer
    # Seconds of all pauses before this frame.
    paused_s: float
    # The model that classifies the frame.
    classifier: Classifier | None = None
    faces: Detections | None = None
    result: FrameResult | None = None


def frame_results(
    source: Source,
    localizer: Localizer,
    classifier: Classifier,
    meter: LatencyMeter,
    max_frames: int | None = None,
    *,
    smooth_s: float = 0.0,
    classify_every: ClassifyEvery = 1,
    presentation_time_s: Callable[[Frame], float] = lambda frame: frame.monotonic_s,
    threaded: bool = True,
    annotate: Callable[[FrameResult], FrameResult] = lambda result: result,
    controls: Controls | None = None,
    current_nets: Callable[[], tuple[Localizer, Classifier]] | None = None,
) -> Generator[tuple[Frame, FrameResult], None, None]:
    """Yield each frame with its result until the source ends or is stopped, or `max_frames` results are done.

    With `threaded`, capture, detection with tracking, and classification each run in a thread of their own. The
    consumer runs in the caller's thread. The results of a recording are the same without threads.

    Between two stages, one frame waits. A newer frame of a live source replaces it. A frame of a recording waits until
    the next stage takes it.

    `meter` receives the times of every frame in milliseconds: its age when the result was done, and its stages. These
    are capture (the wait for the frame and its decoding), detect, track, crop, classify, wait (between two stages) and
    sinks (until the consumer takes the next result). The clock of the frame rate starts when the first frame is
    captured.

    Args:
        source: The frames, in a `with` block of the caller.
        localizer: Returns the boxes to classify: a `FaceTracker`, or `WholeImage`.
        classifier: Classifies them.
        meter: Receives the times.
        max_frames: Largest number of results.
        smooth_s: Time constant of the smoothing of a track's probabilities, in seconds; 0: no smoothing.
        classify_every: Which of its frames a track is classified in, see `choose`; without smoothing in all.
        presentation_time_s: Returns the time of a frame in seconds.
        threaded: Whether the stages run in threads.
        annotate: Called for each result; what it returns is yielded.
        controls: Pauses the capture after the first frame; the frames in flight are finished.
        current_nets: Returns the nets for the next frame; default: always `localizer` and `classifier`.

    Raises:
        SourceError: A live source was lost.
        InputError: The source has no readable frame, or the model returns NaN or infinity.
    """
    controls = controls or Controls()
    with Stages(threaded, every_item=not source.live) as stages:
        dropped_before = source.dropped  # counted since the source was opened
        captured = _captured(source, max_frames, controls)
        first = next(captured, None)
        if first is None:
            return
        meter.start()
        items: Iterator[_InFlight] = itertools.chain([first], captured)
        # Each stage is an iterator that takes its items from the one before.
        if not source.live:  # a live source captures in its own thread
            items = _prefetch(stages, "capture", items)
        with_faces = _with_faces(items, current_nets or (lambda: (localizer, classifier)))
        items = _prefetch(stages, "detect", with_faces)
        with_results = _with_results(items, smooth_s, classify_every, presentation_time_s)
        items = _prefetch(stages, "classify", with_results)
        try:
            # Limited here, too, because a live source captures more frames than get a result, see `_captured`.
            for item in itertools.islice(items, max_frames):
                assert item.result is not None  # `_with_results` has set it
                yield item.frame, annotate(item.result)
                item.timer.mark("sinks")
                meter.add(item.timer.ms | {AGE: item.result.age_ms}, item.paused_s)
                meter.dropped_by_stage = {"capture": source.dropped - dropped_before, **stages.dropped}
        finally:
            # However the loop ended, no stage may wait for another frame.
            source.stop()
            controls.end()


def recognise(frame: Frame, localizer: Localizer, classifier: Classifier, timer: StageTimer) -> FrameResult:
    """Return the result of a single frame, without smoothing.

    `timer` gets the stages of the localizer, crop and classify.

    Raises:
        InputError: The model returns NaN or infinity.
    """
    return classify(frame, localizer.find(frame, timer), classifier, timer)


def classify(
    frame: Frame,
    faces: Detections,
    classifier: Classifier,
    timer: StageTimer,
    time_s: float = 0.0,
    smooth_s: float = 0.0,
    classify_every: ClassifyEvery = 1,
) -> FrameResult:
    """Return the result of a frame with detected faces; `timer` gets the stages crop and classify.

    Args:
        frame: The frame.
        faces: Its faces, without classes.
        classifier: Classifies the faces in one batch.
        timer: Receives the times.
        time_s: Presentation time of the frame in seconds.
        smooth_s: As `frame_results`.
        classify_every: As `frame_results`.

    Raises:
        InputError: The model returns NaN or infinity.
    """
    contract = classifier.contract
    crops = crop_faces(frame, faces, contract)
    last: list[Classification | None] = [None] * len(faces)
    tracks = None if smooth_s == 0 else faces.tracks  # without smoothing, nothing is kept of a face
    if tracks is not None:
        last = [_recent(track.classification, time_s) for track in tracks]  # None after a long absence
    # Without tracks, every face is a new one and is classified.
    choice = choose(crops, last, time_s, 1 if tracks is None else classify_every, are_images=faces.are_regions)
    timer.mark("crop")
    found = _classifications(classifier, crops, choice, last, time_s, smooth_s)
    if tracks is not None:
        for track, face in zip(tracks, found, strict=True):
            track.classification = face
    classified = _with_classes(faces, found, contract, choice)
    timer.mark("classify")
    return FrameResult(
        sequence=frame.sequence,
        monotonic_s=frame.monotonic_s,
        wall_s=frame.wall_s,
        frame_wh=frame.size_wh,
        faces=classified,
        stage_ms=dict(timer.ms),
        age_ms=(time.monotonic() - frame.monotonic_s) * 1e3,
        file=frame.file,
        position_s=frame.position_s,
        subject=contract.subject,
    )


def _classifications(
    model: Classifier, crops: ImageU8, choice: Choice, last: list[Classification | None], time_s: float, smooth_s: float
) -> list[Classification]:
    """Classify the faces of a frame that are due; return the smoothed classifications of all its faces (N,).

    Args:
        model: The classifier.
        crops: The crops of all faces, uint8 (N, H, W, 1 or 3).
        choice: Which faces are due.
        last: The classifications of the faces in earlier frames (N,); None for a new face.
        time_s: As `classify`.
        smooth_s: As `classify`.
    """
    contract = model.contract
    due = np.flatnonzero(choice.due).tolist()
    probabilities, distances = model.outputs(crops[choice.due])
    # By index of the face.
    new_outputs = dict(zip(due, probabilities, strict=True))
    new_distances = {} if distances is None else dict(zip(due, distances, strict=True))
    found = []
    for index, before in enumerate(last):
        is_due = index in new_outputs
        if is_due:
            raw = new_outputs[index]
        else:
            assert before is not None  # a new face is always due
            raw = before.raw
        face = smooth(before, raw, time_s, smooth_s, is_new=is_due, is_cut=bool(choice.cut[index]))
        check_threshold(face, contract.uncertain_below)
        if is_due:
            check_crop(face, crops[index], new_distances.get(index), contract)
        choice.record(index, face)  # for the choice in the next frame
        found.append(face)
    return found


def _with_classes(faces: Detections, found: list[Classification], contract: Contract, choice: Choice) -> Detections:
    """Return the faces with their classifications, of which the arrays have one row per face."""
    # Without faces, `np.array` of the empty list has the shape (0,), not (0, classes).
    shape = len(found), len(contract.labels)
    return replace(
        faces,
        probabilities=np.array([face.shown for face in found], np.float32).reshape(shape),
        raw_probabilities=np.array([face.raw for face in found], np.float32).reshape(shape),
        classes=contract.labels,
        label_indices=np.array([face.label for face in found], np.int64),
        uncertain=np.array([is_uncertain(face) for face in found], np.bool_),
        distances=np.array([face.distance for face in found], np.float32) if contract.distance else None,
        classified=choice.due,
    )


def crop_faces(frame: Frame, faces: Detections, contract: Contract) -> ImageU8:
    """Return the crops of all faces of a frame as one batch: uint8 (N, H, W, 1 or 3), N may be 0.

    A crop shows the part of the frame that `crop_boxes` returns. A region is fitted as the contract states; the square
    of a face is resized as it is.
    """
    crop, size_hw = contract.crop, contract.input.size_hw
    if len(faces) == 0:
        return np.zeros((0, *size_hw, 1 if crop.grayscale else 3), np.uint8)
    # A gray net needs no colours: a camera's luma is used as it is.
    luma = frame.luma if crop.grayscale else None
    image = frame.image_bgr if luma is None else luma
    if faces.are_regions:
        boxes = crop_boxes(faces, frame.size_wh, crop.margin)
        return np.stack([crop_image(image[y0:y1, x0:x1], crop, size_hw, resize) for x0, y0, x1, y1 in boxes])
    return np.stack([crop_face(image, xyxy, crop, size_hw, resize) for xyxy in faces.xyxy])


def _recent(last: Classification | None, time_s: float) -> Classification | None:
    """Return a face's last classification; None, as for a new face, if the face was absent for more than 2 s."""
    return None if last is None or time_s - last.seen_s > _FORGET_S else last


def _captured(source: Source, max_frames: int | None, controls: Controls) -> Iterator[_InFlight]:
    """Yield the frames of the source; between two frames, wait while the run is paused."""
    # A live source captures more than `max_frames`, because newer frames replace some that have no result yet.
    frames = source if source.live else itertools.islice(source, max_frames)
    timer = StageTimer()
    for frame in frames:
        timer.mark("capture")
        yield _InFlight(frame, timer, paused_s=controls.paused_s)
        controls.wait(source)
        timer = StageTimer()  # anew: a pause does not count as time of capture


def _prefetch(stages: Stages, name: str, items: Iterator[_InFlight]) -> Iterator[_InFlight]:
    """Yield the items of a stage; with threads they are computed in a thread called `name`.

    The time from there to the consumer's thread is measured as stage WAIT.
    """
    for item in stages.prefetch(name, items):
        if stages.threaded:  # otherwise no item waits
            item.timer.mark(WAIT)
        yield item


def _with_faces(
    items: Iterable[_InFlight], current_nets: Callable[[], tuple[Localizer, Classifier]]
) -> Iterator[_InFlight]:
    """Add the detected or tracked faces to each item, and the classifier for them."""
    for item in items:
        # Read once per frame, so that both are of the same model.
        localizer, item.classifier = current_nets()
        item.faces = localizer.find(item.frame, item.timer)
        yield item


def _with_results(
    items: Iterable[_InFlight],
    smooth_s: float,
    classify_every: ClassifyEvery,
    presentation_time_s: Callable[[Frame], float],
) -> Iterator[_InFlight]:
    """Add the result with the classified faces to each item."""
    for item in items:
        assert item.faces is not None  # `_with_faces` has set both
        assert item.classifier is not None
        time_s = presentation_time_s(item.frame)
        item.result = classify(item.frame, item.faces, item.classifier, item.timer, time_s, smooth_s, classify_every)
        yield item
