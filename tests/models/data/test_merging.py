"""Merged classes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgekit.errors import InputError
from edgekit.models.data import EXPRESSIONS, DataSet
from edgekit.models.data.merging import merge_classes, parse_merges

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
        (["a=joy"], "there is no class 'joy'"),
        (["a=happy", "b=happy"], "class 'happy' is merged twice"),
        (["a=happy", "a=sad"], "'a' is defined twice"),
    ],
)
def test_merges_that_cannot_be(texts: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_merges(texts, EXPRESSIONS)
