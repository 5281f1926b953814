"""FER+ votes are matched with their images, and each mode computes its labels or targets from them."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgekit.errors import InputError
from edgekit.models.data import EXPRESSIONS, DataSet, ImageSet
from edgekit.models.data.ferplus import COLUMNS, majority_part, read_votes, with_ferplus
from tests.ferplus import votes_for

VOTE_NAMES = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")


def clear(label: int) -> list[int]:
    return votes_for(**{VOTE_NAMES[label]: 9, "unknown": 1})


def faces(votes: dict[str, list[tuple[int, list[int]]]], named: bool = True) -> DataSet:
    """Return a data set with the labels in `votes`, by split; the only pixel of an image is its index."""
    splits = {}
    for usage, rows in votes.items():
        names = np.array([f"train/x/{usage}_{index}.jpg" for index in range(len(rows))]) if named else None
        images = np.arange(len(rows), dtype=np.uint8)[:, None, None, None]
        splits[usage] = ImageSet(images, np.array([label for label, _ in rows], np.int64), names=names)
    return DataSet("fer2013", EXPRESSIONS, splits)


def write_votes(
    path: Path, votes: dict[str, list[tuple[int, list[int]]]], by_path: bool = True, left_out: Iterable[str] = ()
) -> Path:
    rows = []
    for usage, entries in votes.items():
        for index, (_, counts) in enumerate(entries):
            name = f"train/x/{usage}_{index}.jpg"
            if name not in left_out:
                rows.append([usage, name, *counts])
    header = ["usage", "kaggle_path", *COLUMNS]
    if by_path:
        rows.reverse()  # the order must not matter
    else:
        header = ["Usage", "Image name", *COLUMNS]
        rows = [[usage, "" if counts[-1] == 10 else "fer.png", *counts] for usage, _, *counts in rows]
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return path


AGREEING = {usage: [(label, clear(label)) for label in range(7)] for usage in ("Training", "PublicTest")}


@pytest.mark.parametrize("by_path", [True, False])
def test_both_forms_find_their_images(tmp_path: Path, by_path: bool) -> None:
    votes = {**AGREEING, "Training": [*AGREEING["Training"], (6, votes_for(happiness=7, neutral=3))]}
    path = write_votes(tmp_path / "votes.csv", votes, by_path)
    relabelled = with_ferplus(faces(votes, named=by_path), path, "majority")
    assert relabelled.splits["Training"].labels.tolist() == [0, 1, 2, 3, 4, 5, 6, 3]
    assert relabelled.splits["PublicTest"].labels.tolist() == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("votes", "label"),
    [
        (votes_for(anger=6, fear=4), 0),
        (votes_for(anger=5, fear=5), None),  # not more than half
        (votes_for(anger=5, fear=1, disgust=1, sadness=1, neutral=1, unknown=1), 0),  # single votes are ignored
        (votes_for(anger=5, fear=3, unknown=2), None),
        (votes_for(unknown=6, anger=4), None),
        (votes_for(), None),
    ],
)
def test_an_image_stays_when_more_than_half_agree(tmp_path: Path, votes: list[int], label: int | None) -> None:
    rows = {**AGREEING, "PublicTest": [(3, votes)]}
    path = write_votes(tmp_path / "votes.csv", rows)
    relabelled = with_ferplus(faces(rows), path, "majority")
    assert relabelled.splits["PublicTest"].labels.tolist() == ([] if label is None else [label])
    assert relabelled.name == "fer2013 with FER+ majority labels"


def test_mixed_targets_are_a_weighted_mean_of_smoothed_label_and_votes(tmp_path: Path) -> None:
    divided = (0, votes_for(fear=6, surprise=2, anger=1, contempt=2))
    rows = {**AGREEING, "Training": [divided, (4, votes_for(anger=1, contempt=7)), *AGREEING["Training"]]}
    data = faces(rows)
    path = write_votes(tmp_path / "votes.csv", rows)
    result = with_ferplus(data, path, "mixed", label_weight=0.25)
    part = result.splits["Training"]
    assert part.targets is not None
    assert part.targets.dtype == np.float32
    smooth = 0.1 / 7
    label = 0.9 + smooth
    mixed = [0.25 * label, 0.25 * smooth, 0.25 * smooth + 0.75 * 0.75, *[0.25 * smooth] * 2]
    assert part.targets[0, :5] == pytest.approx(mixed)
    assert part.targets[0, 5] == pytest.approx(0.25 * smooth + 0.75 * 0.25)
    assert part.targets[1] == pytest.approx([smooth] * 4 + [label] + [smooth] * 2), "no usable vote: the label alone"
    assert part.targets.sum(axis=1) == pytest.approx(1)
    assert (part.labels == data.splits["Training"].labels).all()
    assert result.splits["PublicTest"] is data.splits["PublicTest"]
    assert result.name == "fer2013"
    assert result.checksum() != with_ferplus(data, path, "mixed", label_weight=0.5).checksum()


def test_mixed_leaves_out_training_images_that_most_votes_call_no_face_or_unknown(tmp_path: Path) -> None:
    kinds = [votes_for(NF=10), votes_for(unknown=6, anger=4), votes_for(unknown=3, NF=3, anger=4)]
    stays = [votes_for(unknown=5, anger=5), votes_for(NF=1), votes_for()]
    training = [*AGREEING["Training"], *[(0, votes) for votes in (*kinds, *stays)]]
    rows = {**AGREEING, "Training": training * 9, "PublicTest": [(0, votes) for votes in kinds]}
    notices: list[str] = []
    path = write_votes(tmp_path / "votes.csv", rows)
    result = with_ferplus(faces(rows), path, "mixed", notify=notices.append)
    assert result.splits["Training"].images.flatten().tolist() == [
        number for number in range(9 * 13) if number % 13 not in (7, 8, 9)
    ]
    assert len(result.splits["PublicTest"]) == 3
    assert "0.5 label + 0.5 votes; 27 training images" in notices[0]


def test_votes_of_other_images_are_refused(tmp_path: Path) -> None:
    rows = {"Training": [(label, clear(label)) for label in range(7)] * 10}
    data = faces(rows)
    few = write_votes(tmp_path / "few.csv", rows, left_out={f"train/x/Training_{index}.jpg" for index in range(8)})
    with pytest.raises(InputError, match="votes for 62 of 70 images of split 'Training'"):
        with_ferplus(data, few)
    shifted = {"Training": [rows["Training"][-1], *rows["Training"][:-1]]}
    with pytest.raises(InputError, match="agrees with 0% of the labels of split 'Training'"):
        with_ferplus(faces(rows, named=False), write_votes(tmp_path / "shifted.csv", shifted, by_path=False))
    with pytest.raises(InputError, match="refers to file names"):
        with_ferplus(faces(rows, named=False), few)
    with pytest.raises(InputError, match="has other classes"):
        with_ferplus(replace(data, classes=("a", "b")), few)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "lacks the column 'usage'"),
        (f"usage,{','.join(COLUMNS)}\n", "has no rows"),
        (f"usage,{','.join(COLUMNS)}\n\nTraining,1,2\n", "line 3: surprise is ''"),
        (
            f"usage,kaggle_path,{','.join(COLUMNS)}\n" + f"Training,a.jpg{',1' * 10}\n" * 2,
            "rows with the same kaggle_path",
        ),
    ],
)
def test_damaged_votes_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "votes.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_votes(path)


@pytest.mark.parametrize("by_path", [True, False])
def test_the_majorities_of_a_split_are_merged_afterwards(tmp_path: Path, by_path: bool) -> None:
    validation = [(0, votes_for(disgust=10)), (3, votes_for(contempt=10)), (2, clear(2))]
    votes = {"Training": AGREEING["Training"], "PublicTest": [*validation, *AGREEING["PublicTest"]]}
    path = write_votes(tmp_path / "votes.csv", votes, by_path)
    dataset = with_ferplus(faces(votes, named=by_path), path, "mixed", label_weight=0.15)
    assert majority_part(dataset, path, "PublicTest").labels.tolist() == [1, 2, *range(7)]
    merged = majority_part(dataset, path, "PublicTest", ["good=happy,surprise", "bad=angry,disgust"])
    assert merged.labels.tolist() == [1, 1, 1, 0, 0]
