"""Validation splits by person or track, for each way in which a data set can name these groups."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekit.errors import InputError
from edgekit.models.data import (
    ImageSet,
    check_classes,
    identical_to,
    named_split,
    train_and_validation,
)
from edgekit.models.data.readers import load_dataset
from tests.images import write_image

PERSONS, PICTURES = 6, 4


def _draw(folder: Path, name_of: Callable[[str, int, int], str]) -> None:
    """Write 4 pictures of each of 6 persons in two classes; `name_of(class, person, number)` returns the file name."""
    generator = np.random.default_rng(0)
    for label in ("open", "shut"):
        for person in range(PERSONS):
            for number in range(PICTURES):
                file = folder / name_of(label, person, number)
                write_image(file, generator.integers(0, 255, (48, 48), dtype=np.uint8))


def _in_table(folder: Path, table: str, line: str, head: str = "") -> None:
    _draw(folder, lambda label, person, number: f"{label}/{person * PICTURES + number}.png")
    rows = [
        line.format(file=f"{label}/{index}.png", group=index // PICTURES)
        for label in ("open", "shut")
        for index in range(PERSONS * PICTURES)
    ]
    (folder / table).write_text("\n".join([*([head] if head else []), *rows]))


def _persons_of(part: ImageSet) -> set[str]:
    assert part.groups is not None
    return set(part.groups.tolist())


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: _draw(folder, lambda label, person, number: f"{label}/person-{person}/{number}.png"),
        lambda folder: _draw(folder, lambda label, person, number: f"train/{label}/person-{person}/{number}.png"),
        lambda folder: _draw(folder, lambda label, person, number: f"{label}/person-{person}_{number}.png"),
        lambda folder: _draw(folder, lambda label, person, number: f"{label}/S{person:03d}_004_{number:08d}.png"),
        lambda folder: _in_table(folder, "persons.csv", "{file},{group}", "path,person"),
        lambda folder: _in_table(folder, "photos.csv", folder.name + "/{file},,{group}", "path,label,person"),
        lambda folder: _in_table(folder, "GROUPS.CSV", "{file};{group}\r", "\ufeffPath;Group\r"),
        lambda folder: _in_table(folder, "crops.jsonl", '{{"file": "{file}", "track": {group}}}'),
    ],
    ids=["folders", "folders-in-split", "file-names", "ck-plus", "csv", "csv-from-outside", "spreadsheet", "jsonl"],
)
def test_no_person_is_on_both_sides(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path)
    data = load_dataset(tmp_path)
    assert data.classes == ("open", "shut")
    training, validation, text = train_and_validation(data, None, None)
    assert len(training) + len(validation) == 2 * PERSONS * PICTURES
    assert set(validation.labels.tolist()) == {0, 1}
    assert _persons_of(training).isdisjoint(_persons_of(validation))
    assert len(_persons_of(training)) > len(_persons_of(validation))
    assert text.endswith("by group")


@pytest.mark.parametrize("above", ["", "{split}/"])
def test_class_folders_that_are_called_like_groups_stay_classes(tmp_path: Path, above: str) -> None:
    def name_of(label: str, person: int, number: int) -> str:
        return f"{above.format(split=('train', 'test')[number % 2])}group-{label}/{person}-{number}.png"

    _draw(tmp_path, name_of)
    data = load_dataset(tmp_path)
    assert data.classes == ("group-open", "group-shut")
    _, validation, text = train_and_validation(data, None, None)
    assert set(validation.labels.tolist()) == {0, 1}
    assert "group" not in text


def test_identical_pictures_are_not_on_both_sides(tmp_path: Path) -> None:
    _draw(tmp_path, lambda label, person, number: f"{label}/{person}-{number}.png")
    for file in list((tmp_path / "open").iterdir()):
        file.with_name(f"copy-{file.name}").write_bytes(file.read_bytes())
    training, validation, text = train_and_validation(load_dataset(tmp_path), None, None)
    assert not identical_to(training.images, validation.images).any()
    assert "training images identical to one of them" in text


def test_a_class_of_identical_pictures_and_one_without_pictures_are_refused() -> None:
    images = np.random.default_rng(0).integers(0, 255, (6, 4, 4, 1), dtype=np.uint8)
    images[3:] = images[3]
    part = ImageSet(images, np.array([0, 0, 0, 1, 1, 1]))
    with pytest.raises(InputError, match="3 training images of class 'b' are identical"):
        check_classes(part, ("a", "b"))
    with pytest.raises(InputError, match="class 'c' has no training image"):
        check_classes(part.subset(np.array([0, 1, 2])), ("a", "c"))


@pytest.mark.parametrize(
    ("splits", "names"),
    [
        (["Training", "PublicTest", "PrivateTest"], ["Training", "PublicTest", "PrivateTest"]),
        (["Test", "Train", "VAL"], ["Train", "VAL", "Test"]),
    ],
)
def test_split_names_stand_for_others_of_their_kind(splits: list[str], names: list[str]) -> None:
    assert [named_split(splits, name) for name in ("train", "val", "test")] == names
    assert named_split(splits, "odd") == "odd"


@pytest.mark.parametrize("split", ["Training", "train"])
def test_a_single_folder_with_a_usual_name_is_a_split(tmp_path: Path, split: str) -> None:
    for label in ("open", "shut"):
        (tmp_path / split / label).mkdir(parents=True)
        assert cv2.imwrite(str(tmp_path / split / label / "0.png"), np.full((8, 8), len(label), np.uint8))
    assert list(load_dataset(tmp_path).splits) == [split]


def _cropped_video(folder: Path, video: str, count: int, start_s: int = 0) -> None:
    """Write the crops of a video, one per second, and their crops.csv."""
    generator = np.random.default_rng(list(folder.name.encode()))
    folder.mkdir(parents=True)
    rows = ["path,source,time_s,person"]
    for second in range(start_s, start_s + count):
        rows.append(f"{video}-{second}.png,{video}.mp4,{second}.0,")
        assert cv2.imwrite(str(folder / f"{video}-{second}.png"), generator.integers(0, 255, (8, 8), dtype=np.uint8))
    (folder / "crops.csv").write_text("\n".join(rows))


def test_neighbouring_frames_of_a_video_are_on_one_side(tmp_path: Path) -> None:
    """With one video per class, validation gets a part of each video."""
    for label in ("open", "shut"):
        _cropped_video(tmp_path / label, "clip", 60)
    training, validation, text = train_and_validation(load_dataset(tmp_path), None, None)
    assert text.endswith("by group")
    assert len(_persons_of(training) | _persons_of(validation)) == 10
    assert validation.names is not None
    for label in ("open", "shut"):
        seconds = [int(name[len(f"{label}/clip-") : -4]) for name in validation.names if name.startswith(label)]
        assert seconds == list(range(seconds[0], seconds[0] + 12))


def test_classes_that_follow_each_other_in_one_video_are_all_validated(tmp_path: Path) -> None:
    """Each class is one fifth of the video: if that were a single group, nothing could be held back."""
    for number, label in enumerate("abcde"):
        _cropped_video(tmp_path / label, "clip", 10, start_s=10 * number)
    tables = [(tmp_path / label / "crops.csv").read_text().splitlines() for label in "abcde"]
    for label in "abcde":
        (tmp_path / label / "crops.csv").unlink()
    (tmp_path / "crops.csv").write_text("\n".join([tables[0][0], *(row for table in tables for row in table[1:])]))
    _, validation, _ = train_and_validation(load_dataset(tmp_path), None, None)
    assert np.bincount(validation.labels).tolist() == [2] * 5


def test_a_table_of_persons_replaces_the_parts_of_a_video(tmp_path: Path) -> None:
    _cropped_video(tmp_path / "open", "clip", 20)
    _cropped_video(tmp_path / "shut", "film", 20)
    rows = [f"{video}-{second}.png,{second % 4}" for video in ("clip", "film") for second in range(20)]
    (tmp_path / "persons.csv").write_text("\n".join(["path,person", *rows]))
    [part] = load_dataset(tmp_path).splits.values()
    assert _persons_of(part) == {f"person-{number}" for number in range(4)}
