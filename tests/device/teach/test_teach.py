"""`edgekit teach`: from a folder of pictures to a file that every command takes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

import edgekit
from edgekit.cli import run
from edgekit.contract import UNCERTAIN
from edgekit.device.engines.classifier import portrait_crops
from edgekit.device.engines.engine import contract_in
from edgekit.device.imaging import read_image
from edgekit.device.teach.embed import Embedder
from edgekit.device.teach.fit import fit_classes
from edgekit.device.teach.teach import Taught
from edgekit.device.teach.write import write_model
from edgekit.errors import EXIT_OK, EXIT_USAGE, GateError, InputError
from edgekit.model_store import asset
from tests.device.teach.shapes import picture, write_pictures

SIZE_PX = 96


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("teach") / "things", 12)


@pytest.fixture(scope="module")
def taught(things: Path) -> Taught:
    return edgekit.teach(things, output=things.parent / "my.onnx", image_size_px=SIZE_PX, notify=lambda _: None)


def test_the_file_recognises_what_was_taught(taught: Taught) -> None:
    model = edgekit.load_model(taught.path)
    assert model.labels == ("disc", "square")
    images = [picture("disc", 100), picture("square", 101), picture("disc", 102)]
    assert model.predict(images).labels == ("disc", "square", "disc")
    assert taught.accuracy > 0.9
    assert taught.interval[0] < taught.accuracy <= taught.interval[1]
    assert taught.counts == {"disc": 12, "square": 12}


def test_the_contract_states_how_the_file_is_used(taught: Taught) -> None:
    contract = contract_in(taught.path)
    assert contract == taught.contract
    assert (contract.subject, contract.precision, contract.input.size_hw) == ("image", "int8", (SIZE_PX, SIZE_PX))
    assert contract.input.sizes_px == ()
    assert contract.distance is not None
    assert contract.distance.threshold == pytest.approx(taught.fit.threshold)


def test_a_run_calls_what_was_not_taught_uncertain(taught: Taught, tmp_path: Path) -> None:
    for number, image in enumerate((picture("square", 7), picture("stripes", 8), read_image(asset("astronaut.png")))):
        cv2.imwrite(str(tmp_path / f"{number}.png"), image)
    with edgekit.stream(source=tmp_path, model=taught.path) as results:
        found = [result.faces for result in results]
    assert [faces.labels for faces in found] == [("square",), (UNCERTAIN,), (UNCERTAIN,)]
    assert [faces[0].distance > taught.fit.threshold for faces in found] == [False, True, True]


def test_a_run_looks_at_the_region_of_the_model_and_roi_wins(tmp_path: Path) -> None:
    embedder = Embedder(SIZE_PX)
    images = [picture(thing, seed) for thing in ("disc", "square") for seed in range(8)]
    fit = fit_classes(np.stack([embedder.views(each) for each in images]), np.repeat([0, 1], 8), ("disc", "square"))
    path = tmp_path / "left.onnx"
    write_model(fit, path, embedder, region=(0.0, 0.0, 0.5, 1.0))
    cv2.imwrite(str(tmp_path / "both.png"), np.hstack([picture("disc", 50), picture("square", 51)]))
    for region, label in ((None, "disc"), (edgekit.device.region.parse_region("0.5,0,0.5,1"), "square")):
        with edgekit.stream(source=tmp_path / "both.png", model=path, region=region) as results:
            (result,) = results
        assert result.faces.labels == (label,)


def test_another_size_is_chosen_at_teach_time(things: Path, tmp_path: Path) -> None:
    for size_px in (128, 224):
        taught = edgekit.teach(things, output=tmp_path / "my.onnx", image_size_px=size_px, notify=lambda _: None)
        assert edgekit.load_model(taught.path).predict(picture("disc", 60)).labels == ("disc",)
    with pytest.raises(InputError):
        edgekit.teach(things, output=tmp_path / "my.onnx", image_size_px=100)


def test_states_of_faces_are_taught_on_crops_of_faces(tmp_path: Path) -> None:
    face = read_image(asset("astronaut.png"))[66:190, 162:286]
    for label, image in (("upright", face), ("upside down", face[::-1])):
        (tmp_path / "faces" / label).mkdir(parents=True)
        for number in range(8):
            cv2.imwrite(str(tmp_path / "faces" / label / f"{number}.png"), image[number : number + 116, number:])
    taught = edgekit.teach(tmp_path / "faces", output=tmp_path / "my.onnx", subject="face", notify=lambda _: None)
    assert taught.contract.subject == "face"
    model = edgekit.load_model(taught.path)
    assert model.predict([face, np.ascontiguousarray(face[::-1])]).labels == ("upright", "upside down")
    crops = portrait_crops(taught.contract)
    assert (model.outputs(crops)[0].argmax(axis=1) == 0).mean() > 0.8


def test_a_file_that_differs_from_the_fit_is_not_written(
    taught: Taught, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(taught.fit), "probabilities", lambda _fit, features: np.full((len(features), 2), 0.5))
    with pytest.raises(GateError):
        write_model(taught.fit, tmp_path / "my.onnx", Embedder(SIZE_PX))
    assert list(tmp_path.iterdir()) == []


def test_an_unreadable_picture_is_skipped_with_a_warning(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "things", 4)
    (folder / "disc" / "broken.png").write_bytes(b"no picture")
    told: list[str] = []
    taught = edgekit.teach(folder, output=tmp_path / "my.onnx", image_size_px=SIZE_PX, notify=told.append)
    assert taught.counts == {"disc": 4, "square": 4}
    assert any("broken.png" in line for line in told)


def test_pictures_of_one_recording_are_a_warning(tmp_path: Path) -> None:
    folder = tmp_path / "things"
    for thing in ("disc", "square"):
        (folder / thing / "kitchen").mkdir(parents=True)
        for number in range(4):
            cv2.imwrite(str(folder / thing / "kitchen" / f"{number}.png"), picture(thing, 0))  # type: ignore[arg-type]
    told: list[str] = []
    edgekit.teach(folder, output=tmp_path / "my.onnx", image_size_px=SIZE_PX, notify=told.append)
    assert sum("one recording" in line for line in told) == 2


def test_equal_pictures_of_one_class_of_two_and_a_picture_in_two_classes_are_warnings(tmp_path: Path) -> None:
    folder, image = tmp_path / "things", read_image(asset("astronaut.png"))
    for label in ("disc", "parts"):
        (folder / label).mkdir(parents=True)
    for number in range(16):
        y, x = (110 * each for each in divmod(number, 4))
        cv2.imwrite(str(folder / "parts" / f"{number}.png"), image[y : y + 170, x : x + 170])
    for number in range(6):
        cv2.imwrite(str(folder / "disc" / f"{number}.png"), picture("disc", 0))
    shutil.copy(folder / "parts" / "3.png", folder / "disc" / "wrong.png")
    told: list[str] = []
    edgekit.teach(folder, output=tmp_path / "my.onnx", image_size_px=SIZE_PX, notify=told.append)
    (alike,) = (line for line in told if "almost equal" in line)
    assert "disc" in alike
    assert "parts" not in alike
    assert any("disc/wrong.png" in line and "parts/3.png" in line for line in told)


@pytest.mark.parametrize("output", [None, "my.pt"])
def test_the_output_is_an_onnx_file(things: Path, output: str | None) -> None:
    with pytest.raises(InputError):
        edgekit.teach(things, output=output)


def test_the_command_prints_one_document(things: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "my.onnx"
    assert run(["teach", str(things), "-o", str(path), "--image-size", "96", "--json"]) == EXIT_OK
    document = json.loads(capsys.readouterr().out)
    assert document["model"] == str(path)
    assert {each["label"]: each["pictures"] for each in document["classes"]} == {"disc": 12, "square": 12}
    assert document["interval"][0] <= document["accuracy"] <= document["interval"][1]


def test_states_of_faces_are_not_taught_into_a_model_of_whole_images(taught: Taught) -> None:
    command = [sys.executable, "-m", "edgekit.cli", "teach", "--source", "demo", "--subject", "face"]
    done = subprocess.run([*command, "-o", taught.path], capture_output=True, text=True, timeout=60)
    assert (done.returncode, str(taught.path) in done.stderr) == (EXIT_USAGE, True)


@pytest.mark.parametrize(
    "arguments",
    [("eval", "--split", "all", "--data"), ("verify", "--against", "{model}", "--split", "all", "--data")],
    ids=lambda each: each[0],
)
def test_other_commands_take_the_file(taught: Taught, things: Path, arguments: tuple[str, ...]) -> None:
    pytest.importorskip("torch", reason="these commands need torch")
    name, *options = (each.format(model=taught.path) for each in arguments)
    assert run([name, str(taught.path), *options, str(things)]) == EXIT_OK


def test_a_model_of_features_classifies_nothing() -> None:
    with pytest.raises(InputError, match="edgekit teach"):
        edgekit.stream(source="demo", model="backbone")


def test_the_backbone_is_small_and_has_its_licence_beside_it() -> None:
    assert asset("backbone.onnx").stat().st_size <= 4_500_000
    assert "Apache" in asset("backbone-licence.txt").read_text()
    assert {node.op_type for node in onnx.load(asset("backbone.onnx")).graph.node} >= {"QuantizeLinear", "Conv"}
