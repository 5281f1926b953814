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
    usual_split,
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
        lambda folder: _in_table(folder, "persons.csv", "{file},{group}", "path,person"),
        lambda folder: _in_table(folder, "photos.csv", folder.name + "/{file},,{group}", "path,label,person"),
        lambda folder: _in_table(folder, "GROUPS.CSV", "{file};{group}\r", "\ufeffPath;Group\r"),
        lambda folder: _in_table(folder, "crops.jsonl", '{{"file": "{file}", "track": {group}}}'),
    ],
    ids=["folders", "folders-in-split", "file-names", "csv", "csv-from-outside", "spreadsheet", "jsonl"],
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


def test_the_checksum_is_that_of_the_groups_too(tmp_path: Path) -> None:
    _in_table(tmp_path, "groups.csv", "{file},{group}", "path,group")
    before = load_dataset(tmp_path).checksum()
    table = tmp_path / "groups.csv"
    first, *rest = table.read_text().splitlines()
    table.write_text("\n".join([first, *(f"{line.split(',')[0]},1" for line in rest)]))
    assert load_dataset(tmp_path).checksum() != before


def test_a_damaged_row_of_a_collection_is_left_out(tmp_path: Path) -> None:
    _in_table(tmp_path, "crops.jsonl", '{{"file": "{file}", "track": {group}}}')
    with (tmp_path / "crops.jsonl").open("a") as table:
        table.write("\n" + "[" * 100_000)
    assert load_dataset(tmp_path).splits["all"].groups is not None


def test_a_picture_without_a_person_leaves_the_split_by_class(tmp_path: Path) -> None:
    _draw(tmp_path, lambda label, person, number: f"{label}/person-{person}_{number}.png")
    next((tmp_path / "open").iterdir()).rename(tmp_path / "open/other.png")
    _, validation, text = train_and_validation(load_dataset(tmp_path), None, None)
    assert np.bincount(validation.labels).tolist() == [4, 4]
    assert "group" not in text


@pytest.mark.parametrize("above", ["", "data/", "train/", "{split}/"])
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


def test_classes_that_differ_only_in_case_are_refused(tmp_path: Path) -> None:
    _draw(tmp_path, lambda label, _person, number: f"{label}/{number}.png")
    (tmp_path / "open").rename(tmp_path / "Shut")
    with pytest.raises(InputError, match="'Shut' and 'shut' differ only in case"):
        load_dataset(tmp_path)


def test_a_class_of_identical_pictures_and_one_without_pictures_are_refused() -> None:
    images = np.random.default_rng(0).integers(0, 255, (6, 4, 4, 1), dtype=np.uint8)
    images[3:] = images[3]
    part = ImageSet(images, np.array([0, 0, 0, 1, 1, 1]))
    with pytest.raises(InputError, match="3 training images of class 'b' are identical"):
        check_classes(part, ("a", "b"))
    with pytest.raises(InputError, match="class 'c' has no training image"):
        check_classes(part.subset(np.array([0, 1, 2])), ("a", "c"))


@pytest.mark.parametrize(
    ("name", "found"), [("val", "PublicTest"), ("test", "PrivateTest"), ("PublicTest", "PublicTest"), ("odd", "odd")]
)
def test_split_names_stand_for_others_of_their_kind(name: str, found: str) -> None:
    assert named_split(["Training", "PublicTest", "PrivateTest"], name) == found


def test_usual_split_names_are_found_in_any_case() -> None:
    splits = ["Test", "Train", "VAL"]
    assert [named_split(splits, name) for name in ("train", "val", "test")] == ["Train", "VAL", "Test"]
    assert usual_split(splits, "train") == "Train"
    assert usual_split(splits, "val") == "VAL"
    assert usual_split(splits, "test") == "Test"


def test_data_without_a_test_split_names_the_option(tmp_path: Path) -> None:
    _draw(tmp_path, lambda name, person, number: f"{name}/{person}_{number}.png")
    with pytest.raises(InputError, match="has no split 'test': it has all; choose one of these with --split"):
        load_dataset(tmp_path).chosen_split(None, "test")


@pytest.mark.parametrize("split", ["Training", "training", "Train"])
def test_a_single_folder_with_a_usual_name_is_a_split(tmp_path: Path, split: str) -> None:
    for label in ("open", "shut"):
        (tmp_path / split / label).mkdir(parents=True)
        assert cv2.imwrite(str(tmp_path / split / label / "0.png"), np.full((8, 8), len(label), np.uint8))
    assert list(load_dataset(tmp_path).splits) == [split]


def test_where_a_table_lists_some_images_the_others_are_groups_of_their_own(tmp_path: Path) -> None:
    """groups.csv lists labelled tracks; one picture was added by hand."""
    _in_table(tmp_path, "groups.csv", "{file},{group}", "path,group")
    added = cv2.imread(str(tmp_path / "open" / "0.png"))
    assert cv2.imwrite(str(tmp_path / "open" / "added.png"), 255 - added)
    training, validation, text = train_and_validation(load_dataset(tmp_path), None, None)
    groups = _persons_of(training) | _persons_of(validation)
    assert len(groups) == PERSONS + 1
    assert "open/added.png" in groups
    assert _persons_of(training).isdisjoint(_persons_of(validation))
    assert text.endswith("by group")


def test_a_class_whose_pictures_are_all_identical_is_named(tmp_path: Path) -> None:
    _draw(tmp_path, lambda label, person, number: f"{label}/{person * PICTURES + number}.png")
    first, *others = sorted((tmp_path / "shut").iterdir())
    for file in others:
        file.write_bytes(first.read_bytes())
    with pytest.raises(InputError, match="class 'shut' are identical to held-back ones: add others"):
        train_and_validation(load_dataset(tmp_path), None, None)


def test_a_table_in_a_class_folder_lists_only_files_of_this_folder(tmp_path: Path) -> None:
    _draw(tmp_path, lambda label, person, number: f"{label}/{person * PICTURES + number}.png")
    (tmp_path / "open/groups.csv").write_text("path,group\n0.png,1\n1.png,1\n")
    [part] = load_dataset(tmp_path).splits.values()
    assert part.groups is not None
    assert sorted(np.asarray(part.names)[part.groups == "group-1"]) == ["open/0.png", "open/1.png"]


def test_a_table_whose_paths_are_no_images_is_reported(tmp_path: Path) -> None:
    _draw(tmp_path, lambda label, person, number: f"{label}/{person * PICTURES + number}.png")
    (tmp_path / "groups.csv").write_text("path,group\nopen\\0.png,1\nopen\\1.png,1\n")
    notices: list[str] = []
    [part] = load_dataset(tmp_path, notify=notices.append).splits.values()
    assert part.groups is None
    assert notices == ["no group in a table is used: none of its paths is an image, such as 'open\\0.png'"]


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


def test_a_person_in_the_name_of_a_video_is_the_group_of_its_crops(tmp_path: Path) -> None:
    for person, label in enumerate(("open", "shut"), start=1):
        _cropped_video(tmp_path / label, f"person-{person}", 10)
    [part] = load_dataset(tmp_path).splits.values()
    assert _persons_of(part) == {"person-1", "person-2"}


def test_a_table_of_persons_replaces_the_parts_of_a_video(tmp_path: Path) -> None:
    _cropped_video(tmp_path / "open", "clip", 20)
    _cropped_video(tmp_path / "shut", "film", 20)
    rows = [f"{video}-{second}.png,{second % 4}" for video in ("clip", "film") for second in range(20)]
    (tmp_path / "persons.csv").write_text("\n".join(["path,person", *rows]))
    [part] = load_dataset(tmp_path).splits.values()
    assert _persons_of(part) == {f"person-{number}" for number in range(4)}
