"""Small copies of the file layouts of RAF-DB, CK+ and other data sets."""

from __future__ import annotations

import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekit.errors import InputError
from edgekit.models.data import EXPRESSIONS
from edgekit.models.data.readers import load_dataset

RAF_ORDER = ("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral")


def picture(path: Path, value: int, size_px: int = 48, colour: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full((size_px, size_px), value, np.uint8)
    assert cv2.imwrite(str(path), np.dstack([image // 2, image // 2, image]) if colour else image)
    return path


def packed(folder: Path) -> Path:
    archive = folder.parent / f"{folder.name}.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    return archive


@pytest.fixture
def raf(tmp_path: Path) -> Path:
    """Ten images in RAF-DB's original layout; red is 10 times the label; the last three are test images."""
    folder = tmp_path / "basic"
    labels = [1, 2, 3, 4, 5, 6, 7, 7, 1, 5]
    lines = []
    for index, label in enumerate(labels):
        name = f"{'train' if index < 7 else 'test'}_{index:05d}"
        picture(folder / "Image/aligned" / f"{name}_aligned.png", 10 * label, 100, colour=True)
        picture(folder / "Image/original" / f"{name}.png", 255, 20)
        lines.append(f"{name}.jpg {label}\n")
    (folder / "EmoLabel").mkdir()
    (folder / "EmoLabel/list_patition_label.txt").write_text("".join(lines))
    return folder


@pytest.mark.parametrize("form", ["folder", "parent", "archive"])
def test_raf_db_as_its_owners_hand_it_out(raf: Path, form: str) -> None:
    data = load_dataset({"folder": raf, "parent": raf.parent}.get(form) or packed(raf))
    assert data.name == "raf-db"
    assert data.classes == EXPRESSIONS
    assert {name: len(part) for name, part in data.splits.items()} == {"train": 7, "test": 3}
    for part in data.splits.values():
        assert part.images.shape[1:] == (48, 48, 3)
        for image, label in zip(part.images, part.labels, strict=True):
            red, green, _ = image[0, 0].tolist()
            assert EXPRESSIONS[label] == RAF_ORDER[red // 10 - 1]
            assert green == red // 2
    names = data.splits["test"].names
    assert names is not None
    assert names[0] == "Image/aligned/test_00007_aligned.png"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train_00001.jpg\n", "line 1: expected"),
        ("train_00001.jpg 1\ntrain_00002.jpg 8\n", "line 2: expected"),
        ("train_00001.jpg 1\ntrain_00001.jpg 2\n", "line 2: 'train_00001' is listed twice"),
        ("train_00099.jpg 1\n", "train_00099_aligned.jpg' cannot be read: No such file"),
    ],
)
def test_a_damaged_list_is_refused(raf: Path, text: str, message: str) -> None:
    (raf / "EmoLabel/list_patition_label.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        load_dataset(raf)


def numbered(folder: Path, name: str) -> Path:
    for split, count in (("train", 7), ("test", 7)):
        for index in range(count):
            picture(folder / split / str(index + 1) / name.format(split=split, index=index), 10 * (index + 1))
    return folder


@pytest.mark.parametrize("evidence", ["names", "table"])
def test_folders_1_to_7_are_raf_db_if_tables_or_names_show_it(tmp_path: Path, evidence: str) -> None:
    names = evidence == "names"
    folder = numbered(tmp_path / "DATASET", "{split}_{index:05d}_aligned.png" if names else "{split}{index}.png")
    if not names:
        rows = [f"train{index}.png,{index + 1}" for index in range(7)]
        (tmp_path / "train_labels.csv").write_text("\n".join(["image,label", *rows]))
    data = load_dataset(folder if names else tmp_path)
    assert data.name == "raf-db"
    assert data.classes == EXPRESSIONS
    labels = [RAF_ORDER[image[0, 0, 0] // 10 - 1] for image in data.splits["train"].images]
    assert [EXPRESSIONS[label] for label in data.splits["train"].labels] == labels


CK_CLASSES = ("anger", "contempt", "disgust", "fear", "happy", "sadness", "surprise")


def ck_plus(folder: Path, splits: tuple[str, ...] = ("",)) -> Path:
    """Write three frames per subject; subject i shows class i modulo 7; its frames have the values 10 i to 10 i + 2."""
    for index in range(21):
        name = CK_CLASSES[index % 7]
        for frame in range(3):
            file = folder / splits[index % len(splits)] / name / f"S{index:03d}_004_{frame:08d}.png"
            picture(file, 10 * index + frame)
    return folder


@pytest.mark.parametrize("form", ["folder", "parent", "archive"])
def test_folders_without_splits_are_one_split(tmp_path: Path, form: str) -> None:
    folder = ck_plus(tmp_path / "CK+48")
    data = load_dataset({"folder": folder, "parent": tmp_path}.get(form) or packed(folder), contempt="keep")
    assert list(data.splits) == ["all"]
    assert data.classes == ("angry", "disgust", "fear", "happy", "sad", "surprise", "contempt")
    part = data.splits["all"]
    assert len(part) == 63
    assert part.names is not None
    assert part.names[0] == "anger/S000_004_00000000.png"


@pytest.mark.parametrize(
    ("contempt", "count", "classes", "expected"),
    [
        ("drop", 54, EXPRESSIONS[:6], ["9 images of contempt are removed"]),
        ("keep", 63, (*EXPRESSIONS[:6], "contempt"), []),
        ("Disgust", 63, EXPRESSIONS[:6], ["9 images of contempt are counted as disgust"]),
    ],
)
def test_contempt_is_treated_as_the_option_states(
    tmp_path: Path, contempt: str, count: int, classes: tuple[str, ...], expected: list[str]
) -> None:
    notices: list[str] = []
    data = load_dataset(ck_plus(tmp_path), contempt=contempt, notify=notices.append)
    assert data.classes == classes
    part = data.splits["all"]
    assert len(part) == count
    assert [line.partition(" (")[0] for line in notices] == expected
    shown = part.images[:, 0, 0, 0] // 10 % 7
    of_contempt = set(part.labels[shown == CK_CLASSES.index("contempt")].tolist())
    assert of_contempt == {"drop": set(), "keep": {6}, "Disgust": {1}}[contempt]


def test_an_image_beside_the_classes_is_named(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "cat" / "0.png", 1)
    picture(tmp_path / "train" / "overview.png", 1)
    with pytest.raises(InputError, match=r"'train/overview.png' is not in <split>/<class>/"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("form", ["folder", "archive"])
def test_a_class_folder_without_images_is_reported(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "pets"
    for split in ("train", "test"):
        for value, name in enumerate(("cat", "dog")):
            picture(folder / split / name / "0.png", 50 * value + 10)
    (folder / "train/bird").mkdir()
    (folder / "notes").mkdir()
    lines: list[str] = []
    data = load_dataset(folder if form == "folder" else packed(folder), notify=lines.append)
    assert data.classes == ("cat", "dog")
    assert len(lines) == 1
    assert lines[0].startswith("folders without images are ignored: ")
    assert lines[0].endswith("train/bird")


@pytest.mark.parametrize("form", ["folder", "archive"])
def test_hidden_files_and_folders_and_what_macos_adds_are_no_images(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "pets"
    for value, name in enumerate(("cat", "dog")):
        picture(folder / "train" / name / "0.png", 50 * value + 10)
    picture(folder / "train/cat/.ipynb_checkpoints/0-checkpoint.png", 10)
    picture(folder / "train/.thumbnails/0.png", 10)
    picture(folder / "__MACOSX/train/cat/0.png", 10)
    (folder / "train/cat/._0.png").write_bytes(b"not an image")
    data = load_dataset(folder if form == "folder" else packed(folder))
    assert data.classes == ("cat", "dog")
    assert len(data.splits["train"]) == 2


@pytest.mark.parametrize("names", [("train", "test"), ("images/train", "images/val"), ("train",)])
def test_splits_without_class_folders_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    for value, name in enumerate(names):
        picture(tmp_path / name / "0.png", 50 * value + 10)
    with pytest.raises(
        InputError, match=r"has no class folders: '.*0\.png' is directly in a split, expected train/<class>/…"
    ):
        load_dataset(tmp_path)


@pytest.mark.parametrize("form", ["folder", "archive"])
def test_images_of_a_format_that_is_not_read_are_named(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "pets"
    for value, name in enumerate(("cat", "dog")):
        picture(folder / name / "0.png", 50 * value + 10)
    for name in ("cat/1.HEIC", "dog/2.avif"):
        (folder / name).write_bytes(bytes(40))
    lines: list[str] = []
    data = load_dataset(folder if form == "folder" else packed(folder), notify=lines.append)
    assert len(data.splits["all"]) == 2
    (line,) = lines
    assert line.startswith("2 HEIC or AVIF images are not read, such as '")
    assert line.endswith("cat/1.HEIC': convert them to JPEG or PNG")


def test_a_misspelt_split_is_reported(tmp_path: Path) -> None:
    def notices(*splits: str) -> list[str]:
        found: list[str] = []
        folder = tmp_path / "-".join(splits)
        for split in splits:
            for name in ("bolt", "nut"):
                (folder / split / name).mkdir(parents=True)
                cv2.imwrite(str(folder / split / name / "1.png"), np.zeros((8, 8), np.uint8))
        load_dataset(folder, notify=found.append)
        return found

    assert any("'tset'" in line and "'test'" in line for line in notices("train", "tset"))
    assert notices("train", "test") == []
    assert notices("Training", "winter") == []
