"""The commands with a model that classifies whole images: one label per frame and no detector."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest

import edgekit
from edgekit.cli import cli
from edgekit.cli import run as run_command_line
from edgekit.cli.commands.boards import read_package
from edgekit.cli.output import Output
from edgekit.contract import METADATA_KEY, Contract
from edgekit.device.annotate import class_colour
from edgekit.device.detections import Face
from edgekit.device.engines.classifier import Classifier
from edgekit.device.imaging import resize
from edgekit.errors import EXIT_OK, InputError
from edgekit.model_store import resolve_model
from edgekit.preprocess import crop_image
from edgekit.report.view import facts


def drawn_in(label: str) -> tuple[int, int, int]:
    """Return the colour in which a label and its box are drawn."""
    return class_colour(Face((0, 0, 1, 1), 1.0, label, 1.0, dict.fromkeys(("red", "green", "blue"), 0.0)))


@pytest.fixture(autouse=True)
def no_detector(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing can be downloaded, so that a detector would be named in a warning."""
    monkeypatch.setenv("EDGEKIT_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def run(tiny_image_model: Path, tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Return a function that runs the command on a source and returns its JSON lines."""

    def on(source: object, *arguments: object) -> list[dict[str, Any]]:
        lines = tmp_path / "out.jsonl"
        lines.unlink(missing_ok=True)
        words = ["run", "--source", source, "--model", tiny_image_model, "--jsonl", lines, *arguments]
        assert run_command_line(list(map(str, words))) == EXIT_OK
        assert not (tmp_path / "cache").exists()
        return [json.loads(line) for line in lines.read_text().splitlines()]

    return on


def with_contract(model: Path, path: Path, **changes: Any) -> Path:
    """Write a copy of a model with changes in its contract."""
    copy = onnx.load(model)
    (document,) = copy.metadata_props
    contract = replace(Contract.from_json(document.value), **changes)
    onnx.helper.set_model_props(copy, {METADATA_KEY: contract.to_json()})
    onnx.save(copy, path)
    return path


def save(path: Path, *parts_bgr: tuple[int, int, int], size_wh: tuple[int, int] = (64, 48)) -> Path:
    """Write an image of vertical stripes."""
    width, height = size_wh
    stripes = [np.full((height, width // len(parts_bgr), 3), part, np.uint8) for part in parts_bgr]
    path.parent.mkdir(exist_ok=True)
    assert cv2.imwrite(str(path), np.hstack(stripes))
    return path


def test_images_get_one_label_each_without_a_track(run, tmp_path, capsys):
    save(tmp_path / "images/0.png", (0, 0, 250), size_wh=(64, 48))
    save(tmp_path / "images/1.png", (0, 250, 0), size_wh=(30, 90))
    lines = run(tmp_path / "images")
    assert [line["subject"] for line in lines] == ["image", "image"]
    faces = [line["results"] for line in lines]
    assert [[(face["label"], face["track_id"]) for face in each] for each in faces] == [
        [("red", None)],
        [("green", None)],
    ]
    assert [face["xyxy"] for (face,) in faces] == [[0, 0, 64, 48], [0, 0, 30, 90]]
    out = capsys.readouterr().out
    assert "images: 2\nlabels: red 1, green 1" in out
    assert "detect " not in out, "there is no stage of detection"


def test_the_demo_gets_one_label_per_frame_in_the_records_and_the_video(run, tmp_path, capsys):
    lines = run("demo", "--max-frames", 8, "--save", tmp_path / "out.mp4", "--csv", tmp_path / "out.csv", "--json")
    assert [[face["track_id"] for face in line["results"]] for line in lines] == [[1]] * 8
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 9
    summary = json.loads(capsys.readouterr().out)
    assert (summary["detector"], summary["faces"], summary["model"]["subject"]) == ("none", 8, "image")
    frame = cv2.VideoCapture(str(tmp_path / "out.mp4")).read()[1].astype(int)
    (label,) = {face["label"] for line in lines for face in line["results"]}
    near = np.abs(frame - drawn_in(label)).max(axis=2) < 60
    assert near[:8, :40].mean() > 0.8, "the label is at the top left"
    assert near[-3:].mean() < 0.1, "the frame has no outline"


def test_only_the_region_is_classified_and_outlined(run, tmp_path, tiny_image_model):
    image = save(tmp_path / "a/0.png", (0, 0, 250), (0, 250, 0), (250, 0, 0), size_wh=(300, 200))
    assert [line["results"][0]["label"] for line in run(image.parent, "--roi", "0,0,100,200")] == ["red"]
    (line,) = run(image.parent, "--roi", "0.4,0.5,0.2,0.25", "--save", tmp_path / "out.mp4")
    (face,) = line["results"]
    assert (face["label"], face["xyxy"]) == ("green", [120, 100, 180, 150])
    model = Classifier(tiny_image_model, 1)
    region = cv2.imread(str(image))[100:150, 120:180]
    crop = crop_image(region, model.contract.crop, model.contract.input.size_hw, resize)
    assert list(face["probabilities"].values()) == pytest.approx(model.probabilities(crop[None])[0].tolist(), abs=1e-6)
    frame = cv2.VideoCapture(str(tmp_path / "out.mp4")).read()[1].astype(int)
    near = np.abs(frame - drawn_in("green")).max(axis=2) < 70
    assert near[149:152, 130:170].any(axis=0).mean() > 0.8, "the lower edge of the region is drawn"


def test_each_zone_is_classified_by_itself(run, tmp_path, tiny_image_model):
    image = save(tmp_path / "a/0.png", (0, 0, 250), (0, 250, 0), (250, 0, 0), size_wh=(300, 200))
    zones = ("--zone", "near=0,0,0.3,0,0.3,1", "--zone", "far=0.7,0.5,1,0.5,1,1")
    taught = with_contract(tiny_image_model, tmp_path / "taught.onnx", region=(0.4, 0.0, 0.6, 1.0))
    for model in (tiny_image_model, taught):  # zones replace the region of a taught model
        (line,) = run(image.parent, *zones, "--model", model)
        found = [(each["zone"], each["label"], each["xyxy"]) for each in line["results"]]
        assert found == [("near", "red", [0, 0, 90, 200]), ("far", "blue", [210, 100, 300, 200])]
    lines = run("demo", *zones, "--max-frames", 3)
    assert [[each["track_id"] for each in line["results"]] for line in lines] == [[1, 2]] * 3


def test_the_benchmark_measures_it_without_a_detector(tiny_image_model):
    report = edgekit.benchmark(
        tiny_image_model, kinds=["run"], threads=[1], seconds=0.01, processes=1, cool_down_s=0, notify=pytest.fail
    )
    (board,) = report.boards
    assert [(cell.kind, cell.detector, cell.faces_per_frame) for cell in board.cells] == [("run", "none", 1.0)]
    assert board.settings.detector_size_px is None
    assert "detector: none" in facts(board)
    with pytest.raises(InputError, match="yunet"):
        edgekit.benchmark(tiny_image_model, kinds=["run"], detector="yunet")
    with pytest.raises(InputError, match="onnx"):
        edgekit.benchmark(tiny_image_model, kinds=["run"], detector="y.onnx")


def test_the_estimate_of_the_loop_has_neither_detector_nor_flow(tmp_path, capsys):
    with_contract(resolve_model("default", (".onnx",)), tmp_path / "image.onnx", subject="image")
    words = ["profile", str(tmp_path / "image.onnx"), "--board", "pi3b+", "--pipeline"]
    assert run_command_line([*words, "--json"]) == EXIT_OK
    captured = capsys.readouterr()
    loops = json.loads(captured.out)["pipeline"]
    assert [part["stage"] for part in loops[0]["parts"]] == ["capture", "classify", "classify"]
    assert "640x480, the whole image, " in captured.err


def test_a_release_of_it_has_no_detector(tiny_image_model, tmp_path):
    settings = tmp_path / "edgekit.toml"
    settings.write_text('source = "demo"\ngpio-button = 17\nevent-snapshots = "shots"\n')
    with cli.make_context("edgekit", ["deploy"]).scope(cleanup=False):
        package = read_package(Output(as_json=False, quiet=True), str(tiny_image_model), settings, 1.0, install=False)
    assert sorted(package.files) == ["edgekit.toml", "model.onnx"]
    assert package.extras == ("gpio",)
