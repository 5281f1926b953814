"""Merged classes, and pictures without labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekit.errors import InputError
from edgekit.models.data import EXPRESSIONS, DataSet
from edgekit.models.data.merging import merge_classes, parse_merges
from edgekit.models.data.unlabelled import load_unlabelled, with_unlabelled

TEXTS = ("positive=happy", "negative = angry, disgust,fear,sad", "neutral=neutral")


def test_images_of_merged_classes_are_kept_under_the_new_label(bars: DataSet) -> None:
    merged = merge_classes(bars, parse_merges(TEXTS, EXPRESSIONS))
    assert merged.classes == ("positive", "negative", "neutral")
    before, after = bars.splits["Training"], merged.splits["Training"]
    assert len(after) == len(before) * 6 // 7
    kept = before.labels != EXPRESSIONS.index("surprise")
    expected = [{3: 0, 6: 2}.get(int(label), 1) for label in before.labels[kept]]
    assert after.labels.tolist() == expected
    assert np.array_equal(after.images, before.images[kept])


def test_targets_are_summed_over_the_classes_that_stay(bars: DataSet) -> None:
    part = bars.splits["Training"].subset(np.array([3]))  # happy
    part = replace(part, targets=np.array([[0.1, 0, 0, 0.6, 0.1, 0.2, 0]], np.float32))
    merged = merge_classes(replace(bars, splits={"Training": part}), parse_merges(TEXTS, EXPRESSIONS))
    np.testing.assert_allclose(merged.splits["Training"].targets, [[0.75, 0.25, 0]], atol=1e-6)


def test_a_target_of_none_of_the_classes_that_stay_gives_way_to_the_label(bars: DataSet) -> None:
    part = bars.splits["Training"].subset(np.array([3]))  # the label is happy, the target is surprise
    part = replace(part, targets=np.eye(7, dtype=np.float32)[[5]])
    merged = merge_classes(replace(bars, splits={"Training": part}), parse_merges(TEXTS, EXPRESSIONS))
    np.testing.assert_array_equal(merged.splits["Training"].targets, [[1, 0, 0]])


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["positive"], "expected the form NEW=OLD,OLD"),
        (["=happy"], "expected the form NEW=OLD,OLD"),
        (["a=happy,"], "expected the form NEW=OLD,OLD"),
        (["a=joy"], "there is no class 'joy'"),
        (["a=happy", "b=happy"], "class 'happy' is merged twice"),
        (["a=happy", "a=sad"], "'a' is defined twice"),
    ],
)
def test_merges_that_cannot_be(texts: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_merges(texts, EXPRESSIONS)


def test_pictures_are_read_whatever_their_folders_are_called(bars: DataSet, tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    assert cv2.imwrite(str(tmp_path / "a.png"), np.full((30, 30, 3), (0, 0, 255), np.uint8))
    assert cv2.imwrite(str(tmp_path / "deep" / "er" / "b.png"), np.full((48, 48), 9, np.uint8))
    colour, gray = load_unlabelled(tmp_path, 48, gray=False), load_unlabelled(tmp_path, 48, gray=True)
    assert colour.shape == (2, 48, 48, 3)
    assert colour[0, 0, 0].tolist() == [255, 0, 0]
    assert gray.shape == (2, 48, 48, 1)
    assert gray[1, 0, 0] == 9
    both = with_unlabelled(bars.splits["Training"], gray)
    assert len(both) == 58
    assert both.labels[-2:].tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("name", "message"), [("", "contains no image"), ("x.csv", "is neither a folder"), ("y", "not exist")]
)
def test_no_pictures(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "x.csv").write_text("")
    with pytest.raises(InputError, match=message):
        load_unlabelled(tmp_path / name if name else tmp_path, 48, gray=True)
