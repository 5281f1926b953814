"""Few-shot sampling: exact counts, one draw per seed, nested samples, and base classes."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.errors import InputError
from edgekit.models.clip.protocols import Splits, base_count, few_shot

Labels = dict[str, NDArray[np.int64]]

CLASSES = ("a", "b", "c")
LABELS: Labels = {
    "train": np.arange(30) % 3,
    "val": np.arange(9) % 3,
    "test": np.arange(12) % 3,
}


def taken(labels: Labels, shots: int, seed: int = 0, splits: Splits | None = None) -> dict[str, tuple[str, list[int]]]:
    selection = few_shot(labels, CLASSES, shots, seed, splits or Splits())
    return {name: (split, chosen.tolist()) for name, (split, chosen) in selection.items()}


@pytest.mark.parametrize("shots", [1, 2, 4, 8])
def test_each_class_gives_that_many_images_and_the_test_split_is_whole(shots: int) -> None:
    chosen = taken(LABELS, shots)
    assert chosen["train"][0] == "train"
    assert np.bincount(LABELS["train"][chosen["train"][1]]).tolist() == [shots] * 3
    assert np.bincount(LABELS["val"][chosen["val"][1]]).tolist() == [min(shots, 3)] * 3
    assert chosen["test"] == ("test", list(range(12)))


def test_one_seed_one_draw_and_fewer_shots_are_part_of_more() -> None:
    assert taken(LABELS, 4) == taken(LABELS, 4)
    assert taken(LABELS, 4)["train"] != taken(LABELS, 4, seed=1)["train"]
    assert set(taken(LABELS, 2)["train"][1]) < set(taken(LABELS, 4)["train"][1])


def test_without_a_validation_split_other_training_images_are_held_back() -> None:
    chosen = taken({"train": LABELS["train"]}, 4)
    assert chosen["val"][0] == "train"
    assert np.bincount(LABELS["train"][chosen["val"][1]]).tolist() == [4] * 3
    assert not set(chosen["val"][1]) & set(chosen["train"][1])
    assert chosen["test"] == chosen["val"]


def test_without_a_validation_split_whole_groups_are_held_back() -> None:
    labels = {"train": np.arange(60) % 3}
    persons = np.array([f"person-{index // 6}" for index in range(60)])
    drawn = {}
    for shots in (2, 8):
        selection = few_shot(labels, CLASSES, shots, 0, Splits(), groups={"train": persons})
        training, validation = (selection[name][1] for name in ("train", "val"))
        assert np.bincount(labels["train"][training]).tolist() == [shots] * 3
        assert set(labels["train"][validation].tolist()) == {0, 1, 2}
        assert set(persons[training]).isdisjoint(persons[validation])
        drawn[shots] = set(training.tolist())
    assert drawn[2] < drawn[8]
    with pytest.raises(InputError, match=r"the 60 pictures of split 'train' belong to one group \('all'\)"):
        few_shot(labels, CLASSES, 2, 0, Splits(), groups={"train": np.full(60, "all")})


def test_a_class_with_fewer_images_than_shots_gives_all_and_is_named() -> None:
    labels = {**LABELS, "train": np.concatenate([LABELS["train"], [0, 0]])}
    messages: list[str] = []
    selection = few_shot(labels, CLASSES, 12, 0, Splits(), messages.append)
    assert np.bincount(labels["train"][selection["train"][1]]).tolist() == [12, 10, 10]
    assert messages == ["classes with fewer images than 12 shots give all they have: b (10), c (10)"]


@pytest.mark.parametrize(
    ("labels", "shots", "splits", "message"),
    [
        ({**LABELS, "train": np.zeros(5, np.int64)}, 1, Splits(), "class 'b' has no image in split 'train'"),
        ({"train": LABELS["train"]}, 10, Splits(), "no image left for validation"),
        (LABELS, 1, Splits(test="x"), "no split 'x'"),
        (LABELS, 1, Splits(train="val"), "cannot be training and validation split"),
    ],
)
def test_what_cannot_be_drawn_is_refused(labels: Labels, shots: int, splits: Splits, message: str) -> None:
    with pytest.raises(InputError, match=message):
        taken(labels, shots, splits=splits)


def test_base_classes_are_the_first_half_rounded_up() -> None:
    assert [base_count(count) for count in (4, 5, 7, 10)] == [2, 3, 4, 5]
    with pytest.raises(InputError, match="at least 2 base and 2 novel classes: the data has 3"):
        base_count(3)
