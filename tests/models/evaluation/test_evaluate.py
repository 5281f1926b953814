"""Evaluation of classifiers: accuracy, matching of classes, FER+ labels, and the authors' reference accuracy."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.contract import Contract, LabelMap
from edgekit.errors import InputError
from edgekit.models.checkpoint import save_checkpoint
from edgekit.models.data import EXPRESSIONS, DataSet, ImageSet
from edgekit.models.data.ferplus import COLUMNS
from edgekit.models.data.readers import load_dataset
from edgekit.models.evaluation.evaluate import Evaluation, aligned, evaluate, open_classifier
from edgekit.models.evaluation.options import Protocols
from edgekit.models.evaluation.run import evaluate as evaluate_model
from edgekit.models.model_loading import contract_for, import_authors_checkpoint
from edgekit.preprocess import FloatArray, ImageU8
from tests.exports import export_checkpoint
from tests.ferplus import votes_for


class _Brightest:
    """Predicts the class of the brightest bar; correct on `bars` if the position of the crop is correct."""

    contract: Contract = contract_for("edgecnn", EXPRESSIONS, "x", gray=True)

    def logits(self, crops: ImageU8) -> FloatArray:
        bars = [crops[:, 4 + 5 * index : 8 + 5 * index].mean(axis=(1, 2, 3)) for index in range(7)]
        return np.stack(bars, axis=1).astype(np.float32)


@pytest.mark.parametrize("protocol", ["center-crop", "ten-crop"])
def test_a_right_classifier_is_right(bars: DataSet, protocol: str) -> None:
    result = evaluate(_Brightest(), bars.splits["PrivateTest"], protocol)  # type: ignore[arg-type]
    assert (result.correct, result.total) == (21, 21)


def test_per_class_and_confusion() -> None:
    predictions = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    result = Evaluation(("a", "b", "c"), np.array([0, 0, 0, 0, 1, 1, 1, 1]), np.eye(3, dtype=np.float32)[predictions])
    assert result.confusion.tolist() == [[3, 1, 0], [0, 2, 2], [0, 0, 0]]
    assert result.accuracy == 5 / 8
    assert result.per_class == {"a": 0.75, "b": 0.5, "c": None}
    assert result.subset(result.truths == 1).correct == 2


def test_loss_is_torchs_cross_entropy() -> None:
    generator = np.random.default_rng(0)
    logits, truths = generator.normal(0, 30, (50, 7)).astype(np.float32), generator.integers(0, 7, 50)
    expected = torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(truths))
    assert Evaluation(EXPRESSIONS, truths, logits).loss == pytest.approx(expected.item(), rel=1e-5)


def test_classes_are_matched_by_name(bars: DataSet) -> None:
    order = tuple(sorted(EXPRESSIONS))
    numbers = np.array([order.index(EXPRESSIONS[label]) for label in bars.splits["PrivateTest"].labels])
    other = DataSet("x", order, {"test": ImageSet(bars.splits["PrivateTest"].images, numbers)})
    images = aligned(other, other.splits["test"], _Brightest.contract)
    assert images.labels.tolist() == bars.splits["PrivateTest"].labels.tolist()


def test_images_are_measured_against_the_majority_of_ferplus(bars: DataSet, tmp_path: Path) -> None:
    columns = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
    rows, splits = [], {}
    for split, part in bars.splits.items():
        names = np.array([f"{split}_{index}.jpg" for index in range(len(part))])
        splits[split] = replace(part, names=names)
        rows += [
            [split, name, *votes_for(**{columns[label]: 9})] for name, label in zip(names, part.labels, strict=True)
        ]
    first = next(index for index, row in enumerate(rows) if row[0] == "PrivateTest")
    rows[first][2:] = votes_for(neutral=9)  # a label that the image does not show
    rows[first + 2][2:] = votes_for(contempt=6, neutral=3)
    rows[first + 1][2:] = rows[2][2:] = votes_for(happiness=5, fear=5)  # no majority; row 2 is Training's third image
    with (tmp_path / "votes.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["usage", "kaggle_path", *COLUMNS], *rows])
    # Training also contains the image without a majority and the image of contempt.
    splits["Training"] = replace(splits["Training"], images=splits["Training"].images.copy())
    splits["Training"].images[1:3] = splits["PrivateTest"].images[1:3]
    data = replace(bars, splits=splits)
    result = evaluate_model(_Brightest(), data, ferplus=tmp_path / "votes.csv")
    assert (result.correct, result.total, result.left_out, result.contempt) == (18, 19, 2, 1)
    assert result.eight_class_accuracy == 18 / 20
    assert result.dataset == "fer2013 with FER+ majority labels"
    merges = ["good=happy", "bad=sad,angry,fear,surprise,disgust"]
    merged = evaluate_model(_AlwaysGood(), data, ferplus=tmp_path / "votes.csv", merges=merges)
    is_neutral = result.truths == EXPRESSIONS.index("neutral")
    is_happy = result.truths == EXPRESSIONS.index("happy")
    assert (merged.total, merged.correct) == ((~is_neutral).sum(), is_happy.sum())
    assert (merged.left_out, merged.eight_class_accuracy) == (2, None)


class _AlwaysGood:
    contract: Contract = contract_for("edgecnn", ("good", "bad"), "x", gray=True)

    def logits(self, crops: ImageU8) -> FloatArray:
        return np.tile(np.array([1, 0], np.float32), (len(crops), 1))


def test_merged_labels_are_measured_on_the_classes_that_they_stand_for(bars: DataSet) -> None:
    class Merged(_AlwaysGood):
        label_map = LabelMap(("good", "bad"), (("happy",), ("sad", "angry", "fear")))
        contract = replace(_AlwaysGood.contract, label_map=label_map)

    merges = ["good=happy", "bad=sad,angry,fear"]
    expected = evaluate_model(_AlwaysGood(), bars, merges=merges)
    for found in (evaluate_model(Merged(), bars), evaluate_model(Merged(), bars, merges=merges)):
        assert (found.labels, found.correct, found.total) == (expected.labels, expected.correct, expected.total)
    other = replace(bars, classes=tuple(f"other {name}" for name in bars.classes))
    with pytest.raises(InputError, match="has the class 'other angry', which the model does not have"):
        evaluate_model(Merged(), other)


@pytest.mark.slow
def test_authors_checkpoint_has_the_reference_accuracy(shared: Path, tmp_path: Path) -> None:
    path = tmp_path / "authors.safetensors"
    weights = shared / "reference/edgecnn/FER2013_EdgeCNN_PrivateTest_model.t7"
    save_checkpoint(path, import_authors_checkpoint(weights, EXPRESSIONS, "fer2013", gray=True))
    # onnxruntime needs half of torch's time for the ten crops.
    exported = export_checkpoint(path, tmp_path / "authors.onnx").path
    images = load_dataset(shared / "data/fer2013.tar.gz").splits["PrivateTest"]
    measured: list[tuple[Path, Protocols, int]] = [(path, "center-crop", 2472), (exported, "ten-crop", 2570)]
    for file, protocol, correct in measured:
        result = evaluate(open_classifier(file), images, protocol)
        assert result.total == 3589
        assert abs(result.correct - correct) <= 2


def test_a_model_that_gives_no_numbers_has_no_accuracy(bars: DataSet) -> None:
    class Lost(_Brightest):
        def logits(self, crops: ImageU8) -> FloatArray:
            return np.full((len(crops), 7), np.nan, np.float32)

    with pytest.raises(InputError, match="NaN or infinity"):
        evaluate(Lost(), bars.splits["PrivateTest"], "center-crop")
