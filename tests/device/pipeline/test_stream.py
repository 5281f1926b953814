"""`edgekit.stream`: results as `edgekit run` computes them, from Python."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

import edgekit
from edgekit.cli import _run
from edgekit.errors import EXIT_OK, InputError


def fail(text: str) -> None:
    raise AssertionError(text)


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    """A folder of three images that the tiny model classifies as red, green and blue."""
    folder = tmp_path / "crops"
    folder.mkdir()
    for index, colour_bgr in enumerate([(0, 0, 250), (0, 250, 0), (250, 0, 0)]):
        cv2.imwrite(str(folder / f"{index}.png"), np.full((20, 20, 3), colour_bgr, np.uint8))
    return folder


def test_results_are_those_of_the_command(tiny_model: Path, tmp_path: Path) -> None:
    lines = tmp_path / "r.jsonl"
    command = ["run", "--source", "demo", "--detector", "haar", "--model", str(tiny_model), "--max-frames", "25"]
    assert _run([*command, "--jsonl", str(lines), "-q"]) == EXIT_OK
    written = [json.loads(line)["faces"] for line in lines.read_text().splitlines()]
    with edgekit.stream(source="demo", detector="haar", model=tiny_model, max_frames=25, notify=fail) as results:
        streamed = [result.faces for result in results]
    assert [[face["label"] for face in faces] for faces in written] == [list(faces.labels) for faces in streamed]
    assert [[face["track_id"] for face in faces] for faces in written] == [
        faces.track_ids.tolist() for faces in streamed
    ]
    for lines_faces, faces in zip(written, streamed, strict=True):
        np.testing.assert_allclose([face["xyxy"] for face in lines_faces], faces.xyxy, atol=0.006)


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
    before = threading.active_count()
    with edgekit.stream(source="demo", detector="none", model=tiny_model, threaded=True) as stream:
        assert next(stream).sequence == 0
        assert threading.active_count() > before
    assert threading.active_count() == before
    assert list(stream) == []


def test_a_stream_that_was_never_read_closes(tiny_model: Path) -> None:
    stream = edgekit.stream(source="demo", detector="none", model=tiny_model)
    stream.close()
    stream.close()
    assert list(stream) == []


def test_a_source_is_closed_if_the_model_cannot_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[object] = []
    monkeypatch.setattr("edgekit.device.sources.demo.DemoSource.__exit__", lambda *_: closed.append(1))
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(InputError, match=r"text\.onnx"):
        edgekit.stream(source="demo", detector="none", model=tmp_path / "text.onnx")
    assert closed == [1]


@pytest.mark.parametrize("arguments", [{}, {"source": "demo", "camera": "auto"}])
def test_a_stream_needs_one_source(arguments: dict[str, str], tiny_model: Path) -> None:
    with pytest.raises(InputError, match="either a source or a camera"):
        edgekit.stream(model=tiny_model, **arguments)
