"""The main loop, with a real model, real images, and detectors with given results."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from edgekit.device.detection import WholeFrame, create_detector
from edgekit.device.detections import Detections
from edgekit.device.engines.classifier import Classifier
from edgekit.device.frame import presentation_time_s
from edgekit.device.pipeline import StreamOptions
from edgekit.device.pipeline.loop import frame_results
from edgekit.device.pipeline.summary import LatencyMeter, Tally
from edgekit.device.sources import open_source
from edgekit.device.tracking import FaceTracker
from edgekit.device.tracking.detection_schedule import Adaptive
from edgekit.errors import InputError, SourceError, StorageError
from tests.waiting import wait_until

BLOCKS_XYXY = ((0, 0, 40, 40), (60, 0, 100, 40), (60, 60, 100, 100))
COLOURS_BGR = ((0, 0, 255), (255, 0, 0), (0, 255, 0))


class Blocks:
    """A detector that returns the first `count` blocks of `blocks_picture`."""

    name = "blocks"

    def __init__(self, count: int = 3) -> None:
        self.count = count
        self.calls = 0

    def detect(self, image_bgr: np.ndarray) -> Detections:
        del image_bgr
        self.calls += 1
        xyxy = np.array(BLOCKS_XYXY[: self.count], np.float32).reshape(-1, 4)
        return Detections(xyxy, np.linspace(0.9, 0.8, self.count, dtype=np.float32))


def go(source, detector, classifier, sinks, meter, max_frames=None, **options) -> None:
    """Run the loop with detection in every frame."""
    write_results(sinks, source, FaceTracker(detector, None), classifier, meter, max_frames, **options)


def write_results(sinks, *arguments, **options) -> None:
    """Write each result of `frame_results` to each sink."""
    with closing(frame_results(*arguments, **options)) as found:
        for frame, result in found:
            for sink in sinks:
                sink.write(frame, result)


class Collector:
    def __init__(self) -> None:
        self.seen = []

    def write(self, frame, result) -> None:
        self.seen.append((frame, result))


@pytest.fixture
def classifier(tiny_model: Path) -> Classifier:
    return Classifier(tiny_model, 1)


@pytest.fixture
def blocks_picture(tmp_path: Path) -> Path:
    image = np.zeros((100, 120, 3), np.uint8)
    for (x0, y0, x1, y1), colour in zip(BLOCKS_XYXY, COLOURS_BGR, strict=True):
        image[y0:y1, x0:x1] = colour
    path = tmp_path / "blocks.png"
    cv2.imwrite(str(path), image)
    return path


def test_each_face_of_a_frame_gets_its_box_score_and_class(classifier, blocks_picture, notices):
    collector, tally = Collector(), Tally()
    with open_source(str(blocks_picture), notices.append) as source:
        go(source, Blocks(), classifier, [collector, tally], LatencyMeter())
    ((frame, result),) = collector.seen
    assert [face.label for face in result.faces] == ["red", "blue", "green"]
    assert result.faces.xyxy.tolist() == [list(map(float, box)) for box in BLOCKS_XYXY]
    assert [face.score for face in result.faces] == pytest.approx([0.9, 0.85, 0.8])
    for face in result.faces:
        assert list(face.probabilities) == ["red", "green", "blue"]
        assert face.probability == max(face.probabilities.values()) == pytest.approx(math.e / (math.e + 2), abs=1e-5)
    assert (result.frame_wh, result.sequence) == ((120, 100), frame.sequence)
    assert (result.monotonic_s, result.wall_s) == (frame.monotonic_s, frame.wall_s)
    assert result.age_ms > 0
    assert list(result.stage_ms) == ["capture", "wait", "detect", "crop", "classify"]
    assert (tally.faces, tally.frames_with_faces, dict(tally.labels)) == (3, 1, {"red": 1, "blue": 1, "green": 1})
    with open_source(str(blocks_picture), notices.append) as source:
        go(source, Blocks(0), classifier, [collector], LatencyMeter())
    assert list(collector.seen[1][1].faces) == []


def test_all_faces_of_a_frame_are_classified_in_one_batch(classifier, blocks_picture, notices, monkeypatch):
    batches = []
    real = classifier.logits
    monkeypatch.setattr(classifier, "logits", lambda crops: batches.append(len(crops)) or real(crops))
    with open_source(str(blocks_picture), notices.append) as source:
        go(source, Blocks(), classifier, [], LatencyMeter())
    assert batches == [3]


@pytest.mark.parametrize("threaded", [False, True])
def test_every_stage_of_every_frame_is_metered(threaded, classifier, write_clip, notices):
    detector, meter = Blocks(2), LatencyMeter()
    with open_source(str(write_clip(levels=range(10), size_wh=(128, 128))), notices.append) as source:
        go(source, detector, classifier, [], meter, threaded=threaded)
    stages = meter.stages()
    waiting = ["wait"] if threaded else []
    assert list(stages) == ["capture", *waiting, "detect", "crop", "classify", "sinks", "age"]
    assert detector.calls == 10
    assert (meter.frames, {stage.count for stage in stages.values()}) == (10, {10})


def test_max_frames_ends_the_run_quietly(classifier, write_clip, notices):
    meter = LatencyMeter()
    with open_source(str(write_clip()), notices.append) as source:
        go(source, WholeFrame(), classifier, [], meter, max_frames=4)
    assert (meter.frames, notices) == (4, [])


class Dropping:
    """A live source that drops two frames before each frame except the first, and then raises a SourceError."""

    name, fps, frame_count, live, skipped = "camera 'test'", 30.0, None, True, 0

    def __init__(self, frames: list) -> None:
        self._frames = frames
        self.dropped = 100
        self.given = threading.Event()

    def stop(self) -> None:
        self.given.set()

    def __enter__(self):
        return self

    def __exit__(self, *exception: object) -> None: ...

    def write(self, *_: object) -> None:
        """As a sink: release the next frame when one has arrived, so that no other frame is dropped."""
        self.given.set()

    def __iter__(self) -> Iterator:
        for index, frame in enumerate(self._frames):
            self.dropped += 2 if index else 0
            yield frame
            self.given.wait(10)
            self.given.clear()
        raise SourceError("camera 'test' was lost")


def test_a_lost_source_leaves_what_was_measured_and_drops_before_the_start_do_not_count(
    classifier, write_clip, notices
):
    with open_source(str(write_clip(levels=range(5))), notices.append) as source:
        frames = list(source)
    meter, tally = LatencyMeter(), Tally()
    source = Dropping(frames)
    with pytest.raises(SourceError):
        go(source, WholeFrame(), classifier, [tally, source], meter)
    assert (meter.frames, tally.faces) == (5, 5)
    assert meter.dropped_by_stage["capture"] == 8
    assert set(meter.dropped_by_stage) == {"capture", "detect", "classify"}, "names of the table"


def test_a_model_that_gives_no_numbers_is_refused(tiny_model, tmp_path, blocks_picture, notices):
    model = onnx.load(str(tiny_model))
    weights = onnx.helper.make_tensor("nan", onnx.TensorProto.FLOAT, [1], [math.nan])
    model.graph.initializer.append(weights)
    model.graph.node[-1].output[0] = "before"
    model.graph.node.append(onnx.helper.make_node("Mul", ["before", "nan"], ["logits"]))
    path = tmp_path / "nan.onnx"
    onnx.save(model, str(path))
    with (
        open_source(str(blocks_picture), notices.append) as source,
        pytest.raises(InputError, match="NaN"),
    ):
        go(source, Blocks(), Classifier(path, 1), [], LatencyMeter())


def results(path: str, detector, classifier, notices, **options) -> list:
    collector = Collector()
    with open_source(path, notices.append) as source:
        clock = presentation_time_s(source)
        face_tracker = FaceTracker(detector, Adaptive(), presentation_time_s=clock)
        write_results(
            [collector],
            source,
            face_tracker,
            classifier,
            LatencyMeter(),
            smooth_s=StreamOptions().smooth_s,
            classify_every="auto",
            presentation_time_s=clock,
            **options,
        )
    return [(result.sequence, list(result.faces)) for _, result in collector.seen]


def test_threads_change_no_result_of_a_file(classifier, notices):
    """Boxes, ids, classified crops and smoothed probabilities do not depend on stage times."""
    detector, path = create_detector("haar", notify=notices.append), "demo"
    alone = results(path, detector, classifier, notices, threaded=False)
    assert str(results(path, detector, classifier, notices, threaded=True)) == str(alone)
    assert [len(found) for _, found in alone] == [1] * 150
    faces = [face for _, found in alone for face in found]
    assert {face.track_id for face in faces} == {1}
    assert 0 < sum(face.detected for face in faces) < 60, "most boxes are followed, not detected"
    assert 0 < sum(face.classified for face in faces) < 80, "faces keep their last output"


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize("stage", ["detect", "logits", "write"])
def test_an_exception_of_a_stage_ends_the_run_with_its_reason(
    write_clip, classifier, notices, monkeypatch, threaded, stage
):
    detector, sink = Blocks(), Collector()
    owner = {"detect": detector, "logits": classifier, "write": sink}[stage]
    real, calls = getattr(owner, stage), []

    def fails(*arguments):
        calls.append(1)
        if len(calls) == 5:
            raise StorageError("the disk broke")
        return real(*arguments)

    monkeypatch.setattr(owner, stage, fails)
    before = threading.active_count()
    with open_source(str(write_clip(size_wh=(128, 128))), notices.append) as source:
        with pytest.raises(StorageError):
            go(source, detector, classifier, [sink], LatencyMeter(), threaded=threaded)
        assert 2 <= len(sink.seen) <= 4
    wait_until(lambda: threading.active_count() <= before)


def test_a_stopped_run_finishes_what_it_has_and_no_more(write_clip, classifier, notices):
    sink = Collector()
    with open_source(str(write_clip(size_wh=(128, 128))), notices.append) as source:

        class Stopping(Collector):
            def write(self, frame, result) -> None:
                super().write(frame, result)
                source.stop()

        sink = Stopping()
        go(source, Blocks(), classifier, [sink], LatencyMeter())
    sequences = [frame.sequence for frame, _ in sink.seen]
    assert sequences == list(range(len(sequences)))
    # One frame in each stage and one before each stage.
    assert 1 <= len(sequences) <= 7


def test_real_videos_and_pictures_have_the_faces_a_person_sees(shared, classifier, notices):
    yunet = shared / "data/yunet/face_detection_yunet_2026may.onnx"
    detector = create_detector(str(yunet), notify=notices.append)

    def counts(name: str) -> list[int]:
        collector = Collector()
        with open_source(str(shared / "data/media" / name), notices.append) as source:
            go(source, detector, classifier, [collector], LatencyMeter())
        return [len(result.faces) for _, result in collector.seen]

    for name, frames in (("fer_test.mp4", 115), ("carphone_pristine.mp4", 120)):
        found = counts(name)
        assert len(found) == frames
        assert found.count(1) >= 0.95 * frames
    for name, faces in (("chelsea.png", 0), ("coffee.png", 0), ("three_faces.jpg", 3), ("astronaut.png", 1)):
        assert counts(name) == [faces], name
    assert notices == []
