"""ImageNet, its shifted copies and FGVC-Aircraft: classes and splits from their list files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekit.errors import InputError
from edgekit.models.clip.descriptions import as_words
from edgekit.models.data.check import scan_dataset
from edgekit.models.data.readers import load_dataset
from tests.coop_trees import make_aircraft, make_imagenet, make_split_file

NAMES = ("tench", "sunglasses", "sunglasses_", "crane bird")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    make_imagenet(tmp_path)
    make_aircraft(tmp_path)
    return tmp_path


def test_imagenet_has_the_classes_of_its_list_and_is_tested_on_its_validation_images(data: Path) -> None:
    dataset = load_dataset(data / "imagenet", 24)
    assert (dataset.name, dataset.classes) == ("ImageNet", NAMES)
    assert {name: part.labels.tolist() for name, part in dataset.splits.items()} == {
        "test": [0, 0, 3, 3, 1, 1, 2, 2],  # in the order of the folders
        "train": [0] * 5 + [3] * 5 + [1] * 5 + [2] * 5,
    }
    assert as_words("sunglasses_") == "sunglasses"


@pytest.mark.parametrize(
    ("folder", "name", "classes"),
    [
        ("imagenetv2", "ImageNetV2", NAMES),
        ("imagenet-sketch", "ImageNetSketch", NAMES),
        ("imagenet-adversarial", "ImageNetA", NAMES[2:]),
        ("imagenet-rendition", "ImageNetR", NAMES[2:]),
    ],
)
def test_shifted_copies_have_the_names_of_imagenet(
    data: Path, folder: str, name: str, classes: tuple[str, ...]
) -> None:
    dataset = load_dataset(data / folder, 24)
    assert (dataset.name, dataset.classes, list(dataset.splits)) == (name, classes, ["test"])
    part = dataset.splits["test"]
    assert np.bincount(part.labels).tolist() == [2] * len(classes)
    bright = part.images.mean(axis=(1, 2)) > 105  # red, green, blue
    colours = {"tench": [0, 0, 1], "sunglasses": [0, 1, 0], "sunglasses_": [1, 0, 0], "crane bird": [0, 1, 1]}
    assert bright.astype(int).tolist() == [colours[classes[label]] for label in part.labels]


def test_images_with_another_suffix_are_counted(data: Path) -> None:
    folder = data / "imagenet/images/val/n01440764"
    for suffix in ("jfif", "heic"):
        (folder / f"1.{suffix}").write_bytes(b"")
    lines: list[str] = []
    load_dataset(data / "imagenet", 24, notify=lines.append)
    assert [line.partition(", such as")[0] for line in lines] == [
        "1 HEIC or AVIF image is not read",
        "1 image with the suffix .jfif is not read",
    ]


def test_folders_of_classes_that_are_not_listed_are_counted(data: Path) -> None:
    lines: list[str] = []
    load_dataset(data / "imagenet", 24, notify=lines.append)
    assert lines == []
    for name in ("n09999999", "n08888888"):
        (data / "imagenet/images/val" / name).mkdir()
    load_dataset(data / "imagenet", 24, notify=lines.append)
    assert lines == ["2 folders are not in classnames.txt and are ignored, such as 'images/val/n08888888'"]


def test_aircraft_have_the_order_of_the_variants(data: Path) -> None:
    dataset = load_dataset(data / "fgvc_aircraft", 24)
    assert (dataset.name, dataset.classes) == ("FGVCAircraft", ("707-320", "A330-200", "DHC-8-100", "F/A-18"))
    assert {name: np.bincount(part.labels).tolist() for name, part in dataset.splits.items()} == {
        "train": [3] * 4,
        "val": [2] * 4,
        "test": [2] * 4,
    }
    assert scan_dataset(data / "fgvc_aircraft").classes == dataset.classes


def test_two_folders_of_one_split_are_refused(data: Path) -> None:
    (data / "imagenetv2/threshold/0").mkdir(parents=True)
    with pytest.raises(InputError, match=r"has images of split 'test' in 'imagenetv2-matched.*' and in 'threshold'"):
        load_dataset(data / "imagenetv2", 24)


@pytest.mark.parametrize(
    ("folder", "file", "content", "message"),
    [
        ("imagenet", "classnames.txt", "n01440764 tench\nray\n", "line 2: expected a folder and a class"),
        ("imagenet", "classnames.txt", "n99999999 nothing\n", "has no image in folders called after the classes"),
        ("fgvc_aircraft", "images_variant_val.txt", "20000000 747\n", "line 1: class '747' is not in variants.txt"),
        ("fgvc_aircraft", "images_variant_val.txt", "7 707-320\n", r"line 1: there is no image '.*images/7\.jpg'"),
    ],
)
def test_damaged_lists_are_refused_in_one_line(data: Path, folder: str, file: str, content: str, message: str) -> None:
    (data / folder / file).write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(data / folder, 24)
    assert "\n" not in str(caught.value)


def test_a_missing_list_is_named(data: Path) -> None:
    (data / "fgvc_aircraft/images_variant_test.txt").unlink()
    with pytest.raises(InputError, match=r"list '.*images_variant_test\.txt' cannot be read: .*No such file"):
        load_dataset(data / "fgvc_aircraft", 24)


def test_another_list_beside_folders_of_classes_is_not_taken_for_imagenets(tmp_path: Path) -> None:
    make_split_file(tmp_path, "own", "Own", "train")
    (tmp_path / "own/classnames.txt").write_text("own_0\nown_1\n")
    assert load_dataset(tmp_path / "own", 8).classes == ("own_0", "own_1", "own_2", "own_3")


@pytest.mark.parametrize("file", ["imagenet/classnames.txt", "fgvc_aircraft/variants.txt"])
def test_a_list_with_a_byte_order_mark_is_read(data: Path, file: str) -> None:
    folder = (data / file).parent
    classes = load_dataset(folder, 24).classes
    (data / file).write_text("\ufeff" + (data / file).read_text())
    assert load_dataset(folder, 24).classes == classes
