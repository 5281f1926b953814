"""`edgekit.stream`: the results of `edgekit run` in Python."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest

import edgekit
from edgekit.contract import METADATA_KEY
from edgekit.device.detections import Face
from edgekit.device.engines.engine import contract_in
from edgekit.device.pipeline.loop import crop_faces
from edgekit.device.sinks.events import EventDetector, EventOptions
from edgekit.device.sources.settings import CameraSettings
from edgekit.errors import InputError
from tests.device.videos import plain_frames, write_video
from tests.waiting import wait_until


def test_a_detector_of_fixed_size_is_reported_with_its_size(yunet_640: Path, tiny_model: Path) -> None:
    options = {"source": "demo", "model": tiny_model, "detector": yunet_640, "max_frames": 1, "notify": pytest.fail}
    with edgekit.stream(min_face_px=60, **options) as results:
        assert len(list(results)) == 1
        assert results.localizer.input_size_px == 640
    with pytest.raises(InputError, match="640"):
        edgekit.stream(detector_size_px=256, **options)


def test_frames_come_with_their_results(tiny_model: Path, crops: Path) -> None:
    stream = edgekit.stream(source=str(crops), detector="none", model=tiny_model)
    labels = []
    for frame, result in stream.with_frames():
        assert frame.sequence == result.sequence
        assert frame.image_bgr.shape == (20, 20, 3)
        labels += result.faces.labels
    assert labels == ["red", "green", "blue"]
    assert (stream.meter.frames, list(stream)) == (3, [])


def test_closing_early_ends_threads_and_source(tiny_model: Path) -> None:
    before = set(threading.enumerate())
    with edgekit.stream(source="demo", detector="none", model=tiny_model, threaded=True) as stream:
        assert next(stream).sequence == 0
        assert set(threading.enumerate()) - before
    # Closing waits half a second for the threads; on a busy machine they can end later.
    wait_until(lambda: set(threading.enumerate()) <= before)
    assert list(stream) == []
    unread = edgekit.stream(source="demo", detector="none", model=tiny_model)
    unread.close()
    unread.close()
    assert list(unread) == []


def test_leaving_the_loop_ends_the_threads(tiny_model: Path) -> None:
    before = set(threading.enumerate())
    for _ in edgekit.stream(source="demo", detector="none", model=tiny_model, threaded=True):
        break
    wait_until(lambda: set(threading.enumerate()) <= before)


@pytest.mark.parametrize("iterated", ["stream", "stream.with_frames()"])
def test_a_program_that_leaves_a_stream_open_ends_as_usual(tiny_model: Path, iterated: str) -> None:
    program = (
        f"import edgekit; stream = edgekit.stream(source='demo', detector='none', model={str(tiny_model)!r}, "
        f"threaded=True)\nfor _ in {iterated}: break"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"source": "demo", "camera": "auto"},
        {"camera": "/dev/none", "realtime": True},
        {"source": "demo", "camera_settings": CameraSettings(rotation=90)},
        {"source": "demo", "classify_every": 0},
    ],
)
def test_a_stream_needs_one_source_and_arguments_that_have_an_effect(
    arguments: dict[str, Any], tiny_model: Path
) -> None:
    with pytest.raises(InputError):
        edgekit.stream(model=tiny_model, detector="none", **arguments)


def test_the_label_of_whole_images_is_smoothed_over_a_video_and_its_changes_are_events(
    tiny_image_model: Path, tmp_path: Path
) -> None:
    red, green = (0, 0, 250), (0, 250, 0)
    video = write_video(tmp_path / "door.mp4", plain_frames(*[red] * 20, green, *[red] * 9, *[green] * 30))
    plain = list(edgekit.stream(source=video, model=tiny_image_model, smooth_s=0))
    assert [result.faces.labels for result in plain[19:22]] == [("red",), ("green",), ("red",)]
    smooth = list(edgekit.stream(source=video, model=tiny_image_model))
    assert [result.faces.labels for result in smooth[19:22]] == [("red",)] * 3, "one frame changes nothing"
    assert {result.subject for result in smooth} == {"image"}
    detector = EventDetector(EventOptions(event_hold=0.3))
    events = [event for result in smooth for event in detector.update(result, result.sequence / 20)]
    assert [(event.track_id, event.previous, event.label) for event in events] == [
        (1, None, "red"),
        (1, "red", "green"),
    ]


@pytest.mark.parametrize(
    ("source", "options", "both_views"),
    [
        ("portrait", {}, True),
        ("portrait", {"mirror": False}, False),
        ("portrait", {"detector": "none"}, False),
        ("demo", {}, False),
        ("demo", {"mirror": True}, True),
    ],
)
def test_pictures_are_classified_with_their_mirror_image(
    source: str, options: dict[str, Any], both_views: bool, tmp_path: Path
) -> None:
    if source == "portrait":
        with edgekit.stream(source="demo", detector="haar") as demo:
            frame, _ = next(demo.with_frames())
        source = str(tmp_path / "portrait.png")
        assert cv2.imwrite(source, frame.image_bgr)
    model = edgekit.load_model("fer2013")
    settings = {"model": "fer2013", "detector": "haar", "classify_every": 1, "max_frames": 3, **options}
    for frame, result in edgekit.stream(source=source, **settings).with_frames():
        crops = crop_faces(frame, result.faces, model.contract)
        plain, mirrored = (model.probabilities(each) for each in (crops, np.ascontiguousarray(crops[:, :, ::-1])))
        expected = (plain + mirrored) / 2 if both_views else plain
        np.testing.assert_allclose(result.faces.raw_probabilities, expected, atol=1e-5)
        assert np.abs(plain - mirrored).max() > 1e-3


def test_whole_images_are_not_mirrored(tiny_image_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "halves.png"
    image = np.zeros((40, 40, 3), np.uint8)
    image[:, :20, 2] = 250
    assert cv2.imwrite(str(path), image)
    (result,) = edgekit.stream(source=path, model=tiny_image_model)
    expected = edgekit.load_model(tiny_image_model).predict(image).probabilities
    np.testing.assert_allclose(result.faces.probabilities, expected, atol=1e-6)


@pytest.mark.parametrize("detector", ["haar", "none", None])
def test_with_every_frame_a_video_is_classified_in_each_frame_and_pictures_are_no_sequence(
    detector: str | None, tiny_model: Path, tiny_image_model: Path, tmp_path: Path
) -> None:
    options = {"model": tiny_model if detector else tiny_image_model, "detector": detector, "every_frame": True}
    with edgekit.stream(source="demo", max_frames=12, **options) as video:
        seen = [(frame.image_bgr, result) for frame, result in video.with_frames()]
    assert all(face.classified for _, result in seen for face in result.faces)
    if detector == "haar":
        assert all("detect" in result.stage_ms for _, result in seen)
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), seen[0][0])
    with edgekit.stream(source=tmp_path, **options) as pictures:
        assert [face.track_id for result in pictures for face in result.faces] == [None, None]


def test_a_face_below_the_threshold_is_uncertain(tiny_model: Path, crops: Path, tmp_path: Path) -> None:
    stripes = np.where(np.arange(20) % 4 < 2, 1.0, 0.5)[:, np.newaxis, np.newaxis]
    for path in crops.iterdir():  # plain crops would be uncertain, too
        cv2.imwrite(str(path), (cv2.imread(str(path)) * stripes).astype(np.uint8))

    def faces(model: Path, **options: float) -> list[Face]:
        stream = edgekit.stream(source=str(crops), detector="none", model=model, **options)
        return [face for result in stream for face in result.faces]

    (plain, *_) = faces(tiny_model)
    assert (plain.label, plain.uncertain) == ("red", False)
    (unsure, *_) = faces(tiny_model, uncertain_below=0.9)
    assert (unsure.label, unsure.uncertain) == ("uncertain", True)
    assert (unsure.probability, unsure.probabilities) == (plain.probability, plain.probabilities)
    (just, *_) = faces(tiny_model, uncertain_below=plain.probability)
    assert just.label == "red"

    model = with_contract(tiny_model, tmp_path / "strict.onnx", uncertain_below=0.9)
    assert {face.label for face in faces(model)} == {"uncertain"}
    assert [face.label for face in faces(model, uncertain_below=0.0)] == ["red", "green", "blue"]


def with_contract(model: Path, path: Path, **changes: object) -> Path:
    """Write a copy of a model file with a changed contract."""
    loaded = onnx.load(model)
    contract = replace(contract_in(model), **changes)  # type: ignore[arg-type]
    onnx.helper.set_model_props(loaded, {METADATA_KEY: contract.to_json()})
    onnx.save(loaded, path)
    return path


@pytest.mark.parametrize("threaded", [True, False])
def test_a_paused_recording_continues_where_it_stopped(tiny_model: Path, crops: Path, threaded: bool) -> None:
    paused: list[float] = []
    with edgekit.stream(source=crops, model=tiny_model, detector="none", threaded=threaded) as stream:
        stream.controls.pause()
        stream.controls.while_paused(lambda: (paused.append(stream.controls.paused_s), stream.controls.resume()))
        assert [result.faces.labels for result in stream] == [("red",), ("green",), ("blue",)]
    assert len(paused) == 1


def test_a_paused_stream_can_be_stopped(tiny_model: Path) -> None:
    with edgekit.stream(source="demo", model=tiny_model, detector="none") as stream:
        stream.controls.while_paused(stream.stop)
        stream.controls.pause()
        assert len(list(stream)) < 10


@pytest.mark.parametrize("threaded", [False, True])
def test_a_model_is_replaced_between_two_frames(
    tiny_model: Path, tiny_image_model: Path, tmp_path: Path, threaded: bool
) -> None:
    video = write_video(tmp_path / "blue.mp4", plain_frames(*[(255, 0, 0)] * 20))
    other = with_contract(tiny_image_model, tmp_path / "other.onnx", labels=("rot", "grün", "blau"))
    options = {"source": video, "detector": "none", "threaded": threaded, "notify": pytest.fail}
    with edgekit.stream(model=tiny_model, **options) as results:
        recognise = results.picture_recogniser()
        picture = cv2.imencode(".png", np.full((8, 8, 3), (255, 0, 0), np.uint8))[1].tobytes()
        assert recognise(picture).faces.labels == ("blue",)
        found = [next(results)]
        results.use_model(other)
        with pytest.raises(InputError):
            results.use_model(video)
        found += list(results)
        assert recognise(picture).faces.labels == ("blau",)
    assert [result.sequence for result in found] == list(range(len(found))), "no frame is lost"
    labels = [(result.subject, *result.faces.labels) for result in found]
    assert labels[0] == ("face", "blue")
    assert labels[-1] == ("image", "blau")
    assert labels == sorted(labels), "frames in flight keep their model, later ones have the new one"
