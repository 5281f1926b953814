"""Publishing of a shipped model: its figures, its card and the tables of the results page."""

from __future__ import annotations

import argparse
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import yaml

from edgekit.device.engines.classifier import Classifier
from edgekit.device.imaging import read_image
from edgekit.model_store import asset
from edgekit.models.evaluation.evaluate import Evaluation
from tests.ferplus import save_votes

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def script(load: Callable[[str], ModuleType]) -> ModuleType:
    return load("publish")


@pytest.fixture
def faces(draw_faces: Callable[..., Path], tmp_path: Path) -> Path:
    """FER-2013's splits, with a few pictures each."""
    return draw_faces(tmp_path / "faces", {"Training": 28, "PublicTest": 7, "PrivateTest": 7})


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photographs: two of class happy with a face, one of class sad without a face."""
    portrait = read_image(asset("astronaut.png"))
    for name, image in (("happy/1.png", portrait), ("happy/2.png", portrait[:, ::-1]), ("sad/1.png", portrait[:50])):
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(file), np.ascontiguousarray(image))
    return tmp_path / "photos"


@pytest.mark.slow
def test_a_published_model_has_the_figures_of_the_data_at_hand(
    script: ModuleType, faces: Path, photos: Path, tmp_path: Path
) -> None:
    folder, docs = tmp_path / "assets", tmp_path / "docs"
    folder.mkdir()
    shutil.copy(asset("fer2013.md"), folder)
    (docs / "reference").mkdir(parents=True)
    (docs / "reference/results.md").write_text(f"before\n{script.BEGIN}\nold\n{script.END}\nafter\n")
    save_votes(faces, tmp_path / "votes.csv")
    sources = {"fer2013": faces, "ferplus": tmp_path / "votes.csv", "photos": photos, "detector": "haar"}
    more = {"training": None, "uncertain_below": 0.4, "docs": docs}
    page = script.publish(
        argparse.Namespace(checkpoint=asset("fer2013.safetensors"), name="fer2013", folder=folder, **sources, **more)
    )
    contract = Classifier(folder / "fer2013.onnx").contract
    document = json.loads((docs / "models/fer2013.json").read_text())
    correct = document["fer2013"]["center-crop"]["correct"]
    assert contract.uncertain_below == 0.4
    first = contract.provenance.accuracy[0]
    assert (first.protocol, first.correct) == ("center-crop", correct)
    assert document["photographs"]["accuracy"] == pytest.approx(2 / 3)
    assert set(document["photographs"]["by"]) == {"brightness", "size"}  # Haar has no landmarks
    front = yaml.safe_load(page.read_text().split("---\n")[1])
    values = {(each["dataset"]["type"], each["metrics"][0]["name"]): each["metrics"][0]["value"] for each in
              front["model-index"][0]["results"]}  # fmt: skip
    assert values["fer2013", "Accuracy, center-crop"] == pytest.approx(100 * correct / 7, abs=0.01)
    assert values["photographs", "Accuracy"] == 66.67
    table = (docs / "reference/results.md").read_text()
    assert (table.startswith("before\n"), table.endswith("after\n"), "old" in table) == (True, True, False)
    assert f"({correct} of 7)" in table


@pytest.mark.parametrize("name", ["default", "fer2013", "distilled"])
def test_the_shipped_cards_are_those_of_their_documents(load: Callable[[str], ModuleType], name: str) -> None:
    script = load("card")
    shipped = asset(f"{name}.md")
    document = json.loads((DOCS / f"models/{name}.json").read_text())
    training = script.training_section(shipped.read_text())
    assert shipped.read_text() == script.card(document, training, shipped.parents[2] / "docs", shipped.parent)


def test_the_tables_of_the_results_page_are_those_of_the_documents(script: ModuleType) -> None:
    page = (DOCS / "reference/results.md").read_text()
    assert page.partition(f"{script.BEGIN}\n\n")[2].partition(f"\n{script.END}")[0] == script.results_tables(
        DOCS / "models"
    )


def test_a_face_is_in_the_band_of_its_measure(load: Callable[[str], ModuleType]) -> None:
    result = Evaluation(("a", "b"), np.array([0, 0, 1, 1]), np.eye(2, dtype=np.float32)[[0, 0, 1, 0]])
    found = load("bands").in_bands(result, "size", np.array([20, math.nan, 48, 200]))["bands"]
    assert [(band["total"], band["accuracy"]) for band in found] == [(1, 1.0), (1, 1.0), (0, None), (1, 0.0)]


@pytest.mark.parametrize(("yaw_deg", "roll_deg"), [(0, 0), (25, 0), (-40, 12), (15, -30)])
def test_the_angles_are_those_of_a_head_that_was_turned(
    load: Callable[[str], ModuleType], yaw_deg: float, roll_deg: float
) -> None:
    eyes_and_nose = np.array([[-0.5, 0, 0], [0.5, 0, 0], [0, 0.5, 0.6]]) * 40  # x right, y down, z to the camera
    yaw, roll = math.radians(yaw_deg), math.radians(roll_deg)
    turned_x = eyes_and_nose[:, 0] * math.cos(yaw) + eyes_and_nose[:, 2] * math.sin(yaw)
    plane = np.stack([turned_x, eyes_and_nose[:, 1]], axis=1)
    rotation = np.array([[math.cos(roll), -math.sin(roll)], [math.sin(roll), math.cos(roll)]])
    landmarks = np.concatenate([plane @ rotation.T + 100, np.zeros((2, 2))]).astype(np.float32)
    assert load("bands").head_angles_deg(landmarks) == pytest.approx((abs(yaw_deg), abs(roll_deg)), abs=0.01)
