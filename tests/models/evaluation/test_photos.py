"""Whole photographs are classified as on the device, and each photograph is counted once."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pytest

import edgekit
from edgekit.contract import Contract, Fit, Subject
from edgekit.device.imaging import read_image, resize
from edgekit.errors import InputError
from edgekit.model_store import asset
from edgekit.models.data import EXPRESSIONS
from edgekit.models.evaluation.evaluate import mean_recall
from edgekit.models.evaluation.photos import PhotoEvaluation, evaluate_photos
from edgekit.models.model_loading import contract_for
from edgekit.preprocess import FloatArray, ImageU8, crop_image
from tests.images import write_image

PORTRAIT = read_image(asset("astronaut.png"))
NOBODY = np.full((100, 150, 3), 90, np.uint8)


class ByBrightness:
    """Classifies a bright crop as happy and a dark one as sad; records the crops."""

    def __init__(self, subject: Subject = "face") -> None:
        contract = contract_for("edgecnn", EXPRESSIONS, "x", gray=True)
        self.contract: Contract = replace(contract, labels=("happy", "sad"), subject=subject)
        self.crops: list[ImageU8] = []

    def logits(self, crops: ImageU8) -> FloatArray:
        self.crops += list(crops)
        is_bright = crops.mean(axis=(1, 2, 3)) > 60
        return np.stack([is_bright, ~is_bright], axis=1).astype(np.float32)


def evaluate(photos: Path, *models: object, **options) -> list[PhotoEvaluation]:
    return evaluate_photos(models or (ByBrightness(),), photos, detector="haar", **options)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """happy: one correct, one wrong, one without face; sad: one correct (two faces), one unreadable; contempt: one."""
    folder = tmp_path / "photos"
    dark = (PORTRAIT // 3).astype(np.uint8)
    write_image(folder / "happy/right.png", PORTRAIT)
    write_image(folder / "happy/wrong.png", dark)
    write_image(folder / "happy/missed.png", NOBODY)
    write_image(folder / "sad/right.png", np.hstack([dark[:300, 90:390]] * 2))
    (folder / "sad/text.png").write_text("no picture")
    write_image(folder / "contempt/1.png", PORTRAIT)
    return folder


def test_every_photograph_is_counted_once(photos: Path) -> None:
    notices: list[str] = []
    [result] = evaluate(photos, notify=notices.append)
    assert (result.total, result.with_face.total, result.missed_total) == (4, 3, 1)
    assert result.missed == {"happy": 1, "sad": 0}
    assert (result.several_faces, result.left_out, result.unreadable) == (1, {"contempt": 1}, ("sad/text.png",))
    assert result.with_face.confusion.tolist() == [[1, 1], [0, 1]]
    assert (result.accuracy, result.with_face.accuracy) == (2 / 4, 2 / 3)
    assert result.per_class == {"happy": 1 / 3, "sad": 1.0}
    assert result.with_face.per_class == {"happy": 1 / 2, "sad": 1.0}
    assert result.detector == "haar"
    assert ["text.png" in line and line.endswith(": skipped") for line in notices] == [True]


def test_a_model_of_whole_images_gets_the_whole_photograph_and_no_detector(photos: Path) -> None:
    model = ByBrightness("image")
    [result] = evaluate(photos, model)
    assert (result.total, result.missed_total, result.several_faces, result.detector) == (4, 0, 0, None)
    contract = model.contract
    seen = {crop.tobytes() for crop in model.crops}
    for image in (PORTRAIT, NOBODY):
        assert crop_image(image, contract.crop, contract.input.size_hw, resize).tobytes() in seen


@pytest.mark.parametrize("mirror", [True, False])
def test_the_probabilities_are_those_of_a_run(tmp_path: Path, mirror: bool) -> None:
    happy = tmp_path / "photos/happy"
    views = [PORTRAIT, PORTRAIT[:, ::-1], PORTRAIT[20:400], resize(PORTRAIT, (300, 300)), PORTRAIT // 2]
    views.append(cv2.cvtColor(PORTRAIT, cv2.COLOR_BGR2GRAY))
    smaller = resize(np.ascontiguousarray(PORTRAIT[:300, 389:89:-1] // 2), (200, 200))
    views.append(np.hstack([np.vstack([smaller, np.zeros((100, 200, 3), np.uint8)]), PORTRAIT[:300, 90:390]]))
    for number, view in enumerate(views):
        write_image(happy / f"{number}.png", np.ascontiguousarray(view))
    [result] = evaluate(tmp_path / "photos", "default", mirror=mirror)
    options = {} if mirror else {"mirror": False}  # a run averages over mirror images of pictures
    with edgekit.stream(source=happy, detector="haar", largest_only=True, smooth_s=0, **options) as stream:
        seen = np.concatenate([frame.faces.probabilities for frame in stream])
    assert (result.several_faces, result.mirror) == (1, mirror)
    exponents = np.exp(result.with_face.logits)
    np.testing.assert_allclose(exponents / exponents.sum(axis=1, keepdims=True), seen, atol=1e-5)
    assert len(seen) == len(views)


@pytest.mark.parametrize("fit", get_args(Fit))
def test_without_a_detector_the_photograph_is_fitted_as_the_contract_states(photos: Path, fit: Fit) -> None:
    model = ByBrightness()
    model.contract = replace(model.contract, crop=replace(model.contract.crop, fit=fit))
    evaluate_photos((model,), photos, detector="none", mirror=False)
    image = read_image(photos / "sad/right.png")
    crop = crop_image(image, model.contract.crop, model.contract.input.size_hw, resize)
    assert crop.tobytes() in {each.tobytes() for each in model.crops}


def test_labels_come_from_a_table_where_there_is_one(photos: Path, tmp_path: Path) -> None:
    table = "path,Label,person\nphotos/happy/right.png,Happiness,7\nphotos/contempt/1.png,sad,8\nabsent.png,sad,8\n"
    (photos / "photos.csv").write_text(table)
    with tarfile.open(tmp_path / "photos.tar", "w") as archive:
        archive.add(photos, "photos")
    for data in (photos, tmp_path / "photos.tar"):
        notices: list[str] = []
        [result] = evaluate(data, notify=notices.append)
        assert result.with_face.confusion.tolist() == [[1, 0], [1, 0]]
        assert notices == [
            "not used: 1 row of photos.csv whose path is no image, such as 'absent.png'",
            "4 pictures without a label in photos.csv are left out",
        ]


def test_a_split_is_chosen_by_name(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_image(tmp_path / "splits" / split / "happy/1.png", PORTRAIT)
    write_image(tmp_path / "splits/test/sad/1.png", PORTRAIT)
    assert evaluate(tmp_path / "splits")[0].total == 3
    assert evaluate(tmp_path / "splits", split="test")[0].total == 2
    with pytest.raises(InputError, match="have no split 'val': they have test, train"):
        evaluate(tmp_path / "splits", split="val")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("path,label\nx.png,sad\n", "none of its paths is an image"),
        ("path,label\nhappy/right.png,sad\nhappy/right.png,happy\n", "lists 'happy/right.png' twice: keep one row"),
    ],
)
def test_a_wrong_table_is_one_line(photos: Path, table: str, message: str) -> None:
    (photos / "photos.csv").write_text(table)
    with pytest.raises(InputError, match=message):
        evaluate(photos)


def test_the_mean_recall_counts_chosen_classes_that_have_images() -> None:
    recalls = {"a": 0.5, "b": None, "c": 1.0}
    assert mean_recall(recalls) == 0.75
    assert mean_recall(recalls, ["b", "c"]) == 1.0
    assert mean_recall(recalls, ["b"]) is None
    with pytest.raises(InputError, match="no class 'd': its labels are a, b, c"):
        mean_recall(recalls, ["d"])
