"""The main loop, with a real model, real images, and detectors with given results."""

from __future__ import annotations

import math
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

import edgekit
from edgekit.device.detection import create_detector
from edgekit.device.detections import Detections, FrameResult
from edgekit.device.engines.classifier import Classifier
from edgekit.device.frame import Frame
from edgekit.device.pipeline.loop import frame_results
from edgekit.device.pipeline.summary import LatencyMeter, Tally
from edgekit.device.sources import open_source
from edgekit.device.tracking import FaceTracker
from edgekit.errors import InputError

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


def loop(source, detector, classifier, meter=None, **options) -> list[tuple[Frame, FrameResult]]:
    """Return all frames and results of the loop with detection in every frame."""
    face_tracker = FaceTracker(detector, None)
    with closing(frame_results(source, face_tracker, classifier, meter or LatencyMeter(), **options)) as found:
        return list(found)


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
    tally = Tally()
    with open_source(str(blocks_picture), notices.append) as source:
        ((frame, result),) = loop(source, Blocks(), classifier)
    tally.write(frame, result)
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
        ((_, result),) = loop(source, Blocks(0), classifier)
    assert list(result.faces) == []


@pytest.mark.parametrize("threaded", [False, True])
def test_every_stage_of_every_frame_is_metered(threaded, classifier, write_clip, notices):
    detector, meter = Blocks(2), LatencyMeter()
    with open_source(str(write_clip(levels=range(10), size_wh=(128, 128))), notices.append) as source:
        loop(source, detector, classifier, meter, threaded=threaded)
    stages = meter.stages()
    waiting = ["wait"] if threaded else []
    assert list(stages) == ["capture", *waiting, "detect", "crop", "classify", "sinks", "age"]
    assert detector.calls == 10
    assert (meter.frames, {stage.count for stage in stages.values()}) == (10, {10})


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
        loop(source, Blocks(), Classifier(path, 1))


def results(model, notices, threaded: bool) -> list:
    with edgekit.stream(
        source="demo", detector="haar", model=model, notify=notices.append, threaded=threaded
    ) as stream:
        return [(result.sequence, list(result.faces)) for result in stream]


def test_threads_change_no_result_of_a_file(tiny_model, notices):
    """Boxes, ids, classified crops and smoothed probabilities do not depend on stage times."""
    alone = results(tiny_model, notices, threaded=False)
    assert str(results(tiny_model, notices, threaded=True)) == str(alone)
    assert [len(found) for _, found in alone] == [1] * 150
    faces = [face for _, found in alone for face in found]
    assert {face.track_id for face in faces} == {1}
    assert 0 < sum(face.detected for face in faces) < 60, "most boxes are followed, not detected"
    assert 0 < sum(face.classified for face in faces) < 80, "faces keep their last output"


def test_real_videos_and_pictures_have_the_faces_a_person_sees(shared, classifier, notices):
    yunet = shared / "data/yunet/face_detection_yunet_2026may.onnx"
    detector = create_detector(str(yunet), notify=notices.append)

    def counts(name: str) -> list[int]:
        with open_source(str(shared / "data/media" / name), notices.append) as source:
            return [len(result.faces) for _, result in loop(source, detector, classifier)]

    for name, frames in (("fer_test.mp4", 115), ("carphone_pristine.mp4", 120)):
        found = counts(name)
        assert len(found) == frames
        assert found.count(1) >= 0.95 * frames
    for name, faces in (("chelsea.png", 0), ("coffee.png", 0), ("three_faces.jpg", 3), ("astronaut.png", 1)):
        assert counts(name) == [faces], name
    assert notices == []
