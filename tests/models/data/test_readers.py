"""All file formats of a data set give the same images; damaged files raise a one-line error."""

from __future__ import annotations

import csv
import gzip
import re
import tarfile
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from edgekit.errors import InputError
from edgekit.models.data import EXPRESSIONS, DataSet, ImageSet, train_and_validation
from edgekit.models.data.readers import load_dataset
from tests.images import write_image


def _write_csv(path: Path, data: DataSet) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["emotion", "pixels", "Usage"])
        for usage, part in data.splits.items():
            for image, label in zip(part.images, part.labels, strict=True):
                writer.writerow([label, " ".join(map(str, image.flatten())), usage])
    return path


def _write_hdf5(path: Path, data: DataSet) -> Path:
    with h5py.File(path, "w") as file:
        for usage, part in data.splits.items():
            file[f"{usage}_pixel"] = part.images[..., 0]
            file[f"{usage}_label"] = part.labels
    return path


def _write_prefixed(folder: Path, data: DataSet) -> Path:
    """Write the layout of shared/data/fer2013.tar.gz: two folders, with the official split in the file name."""
    for usage, part in data.splits.items():
        for index, (image, label) in enumerate(zip(part.images, part.labels, strict=True)):
            top = "train" if usage == "Training" else "test"
            file = folder / "fer2013" / top / EXPRESSIONS[label] / f"{usage}_{index}.png"
            write_image(file, image)
    return folder


def test_all_forms_of_fer2013_give_the_same_content(bars: DataSet, bars_folder: Path, tmp_path: Path) -> None:
    prefixed = _write_prefixed(tmp_path / "prefixed", bars)
    archive = tmp_path / "fer2013.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(prefixed / "fer2013", "fer2013")
    paths = [
        bars_folder,
        prefixed,
        archive,
        _write_csv(tmp_path / "fer2013.csv", bars),
        _write_hdf5(tmp_path / "data.h5", bars),
    ]
    for path in paths:
        loaded = load_dataset(path)
        assert loaded.name == "fer2013"
        assert loaded.is_gray
        assert loaded.classes == EXPRESSIONS
        assert list(loaded.splits) == ["Training", "PublicTest", "PrivateTest"]
        for usage, part in loaded.splits.items():
            assert sorted(zip(part.labels, map(bytes, part.images), strict=True)) == sorted(
                zip(bars.splits[usage].labels, map(bytes, bars.splits[usage].images), strict=True)
            )


@pytest.mark.parametrize("packed", [False, True])
def test_files_keep_their_path_below_the_folder_of_the_splits(bars: DataSet, tmp_path: Path, packed: bool) -> None:
    path = _write_prefixed(tmp_path / "prefixed", bars)
    if packed:
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            tar.add(path, "some/where")
        path = tmp_path / "a.tar"
    loaded = load_dataset(path)
    for usage, top in (("Training", "train"), ("PublicTest", "test"), ("PrivateTest", "test")):
        part = loaded.splits[usage]
        assert part.names is not None
        for image, label, name in zip(part.images, part.labels, part.names, strict=True):
            index = int(name.rpartition("_")[2].removesuffix(".png"))
            assert name == f"{top}/{EXPRESSIONS[label]}/{usage}_{index}.png"
            assert (image == bars.splits[usage].images[index]).all()


def _packed(bars_folder: Path, archive: Path) -> tuple[bytes, int]:
    """Write the folder as an uncompressed archive; return its bytes and the offset of a member in the middle."""
    with tarfile.open(archive, "w") as tar:
        tar.add(bars_folder, "bars")
    with tarfile.open(archive) as tar:
        members = [member for member in tar.getmembers() if member.isfile()]
    return archive.read_bytes(), members[len(members) // 2].offset


def test_an_archive_that_lost_images_is_refused(bars_folder: Path, tmp_path: Path) -> None:
    whole, middle = _packed(bars_folder, tmp_path / "whole.tar")
    load_dataset(tmp_path / "whole.tar")
    broken = bytearray(whole)
    broken[middle + 148] ^= 0xFF  # the header's checksum
    packed = gzip.compress(whole)
    for name, content, reason in (
        ("between-members.tar", whole[:middle], "cut off or broken"),
        ("header.tar", bytes(broken), "cut off or broken"),
        ("checksum.tar.gz", packed[:-8] + bytes(4) + packed[-4:], "CRC"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"damaged archive: .*{reason}"):
            load_dataset(tmp_path / name)


def test_checksum_sees_content_and_nothing_else(bars: DataSet, tmp_path: Path) -> None:
    from_csv = load_dataset(_write_csv(tmp_path / "a.csv", bars))
    from_hdf5 = load_dataset(_write_hdf5(tmp_path / "b.h5", bars))
    assert from_csv.checksum() == from_hdf5.checksum() == bars.checksum()
    bars.splits["Training"].images[0, 0, 0, 0] ^= 1
    assert from_csv.checksum() != bars.checksum()


def test_any_folders_of_colour_pictures_of_any_size(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for split, name, shape in (
        ("train", "cat", (60, 90, 3)),
        ("train", "dog", (48, 48, 3)),
        ("val", "cat", (20, 9, 3)),
    ):
        file = tmp_path / split / name / "0.png"
        file.parent.mkdir(parents=True)
        cv2.imwrite(str(file), generator.integers(0, 255, shape, dtype=np.uint8))
    loaded = load_dataset(tmp_path)
    assert loaded.classes == ("cat", "dog")
    assert {name: part.images.shape for name, part in loaded.splits.items()} == {
        "train": (2, 48, 48, 3),
        "val": (1, 48, 48, 3),
    }


def test_files_of_numbers_are_fitted_as_pictures_are(bars: DataSet, bars_folder: Path, tmp_path: Path) -> None:
    files = (_write_csv(tmp_path / "fer2013.csv", bars), _write_hdf5(tmp_path / "data.h5", bars))
    for size_px in (32, 64):
        expected = load_dataset(bars_folder, size_px, fit="clip").splits["PublicTest"].images
        for file in files:
            loaded = load_dataset(file, size_px, fit="clip").splits["PublicTest"].images
            assert sorted(map(bytes, loaded)) == sorted(map(bytes, expected)), file


@pytest.mark.slow
def test_shared_fer2013_has_the_official_splits(shared: Path) -> None:
    data = load_dataset(shared / "data/fer2013.tar.gz")
    assert {name: len(part) for name, part in data.splits.items()} == {
        "Training": 28_709,
        "PublicTest": 3_589,
        "PrivateTest": 3_589,
    }
    counts = np.bincount(data.splits["Training"].labels)
    assert counts.tolist() == [3995, 436, 4097, 7215, 4830, 3171, 4965]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n", "lacks the column 'emotion'"),
        ("emotion,pixels,Usage\n", "no rows"),
        ("emotion,pixels,Usage\n9,0 0,Training\n", "emotion 9"),
        ("emotion,pixels,Usage\n1,0 0,Training\n", "expected 2304 pixels"),
        ("emotion,pixels,Usage\n\nx,0,Training\n", "line 3"),
        (f"emotion,pixels,Usage\n1,{'0 ' * 2304}\n", "line 2: no Usage"),
    ],
)
def test_damaged_csv_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "fer2013.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        load_dataset(path)


def test_damaged_or_foreign_files_are_refused(bars: DataSet, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(_write_prefixed(tmp_path / "p", bars), "p")
    archive.write_bytes(archive.read_bytes()[:2000])
    (tmp_path / "b.h5").write_text("text")
    (tmp_path / "c.txt").write_text("text")
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("a.tar.gz", "damaged archive"),
        ("b.h5", "not an HDF5 file"),
        ("c.txt", "has an unknown format"),
        ("empty", "has no image"),
        ("absent", "does not exist"),
    ):
        with pytest.raises(InputError, match=message):
            load_dataset(tmp_path / name)


def test_truncated_images_are_counted_and_the_first_is_named(bars_folder: Path) -> None:
    files = sorted(bars_folder.rglob("*.png"))
    for file in files[3], files[5]:
        file.write_bytes(file.read_bytes()[:30])
    check = re.escape(f"2 of {len(files)} images cannot be read (see `edgekit data check {bars_folder}`): image '")
    with pytest.raises(InputError, match=rf"^{check}.*({files[3].name}|{files[5].name})' cannot be decoded"):
        load_dataset(bars_folder)


def test_validation_never_comes_from_a_test_split(bars: DataSet) -> None:
    renamed = DataSet("x", bars.classes, {"train": bars.splits["Training"], "test": bars.splits["PrivateTest"]})
    _, validation, text = train_and_validation(renamed, None, None)
    assert (len(validation), text) == (7, "held back from train")


def test_held_back_images_leave_the_training_split(bars: DataSet) -> None:
    labels = np.tile(bars.splits["Training"].labels, 3)
    images = np.arange(168, dtype=np.uint8).reshape(168, 1, 1, 1)
    big = DataSet("x", bars.classes, {"train": ImageSet(images, labels)})
    training, validation, name = train_and_validation(big, None, None)
    assert (len(training), len(validation), name) == (140, 28, "held back from train")
    assert np.bincount(validation.labels).tolist() == [4] * 7  # a fifth, because the classes are small


def test_unknown_split_lists_those_there_are(bars: DataSet) -> None:
    with pytest.raises(InputError, match="Training or PublicTest or PrivateTest"):
        bars.split("nowhere")
    assert bars.split("test") is bars.splits["PrivateTest"]


def _write_one_split(path: Path, pixels: object, labels: object, **storage: object) -> Path:
    with h5py.File(path, "w") as file:
        if storage:
            file.create_dataset("PrivateTest_pixel", **storage)
        else:
            file["PrivateTest_pixel"] = pixels
        file["PrivateTest_label"] = labels
    return path


def test_hdf5_that_reads_another_file_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(7 * 2304))
    storage = {"shape": (7, 48, 48), "dtype": np.uint8, "external": [(str(secret), 0, 7 * 2304)]}
    path = _write_one_split(tmp_path / "a.h5", None, np.arange(7), **storage)
    with pytest.raises(InputError, match="in another file"):
        load_dataset(path)


def test_hdf5_that_declares_a_huge_size_is_refused_unread(tmp_path: Path) -> None:
    storage = {"shape": (10**9, 48, 48), "dtype": np.uint8, "chunks": (1, 48, 48)}
    path = _write_one_split(tmp_path / "a.h5", None, np.arange(7), **storage)
    assert path.stat().st_size < 100_000
    with pytest.raises(InputError, match="more than 2048 MiB"):
        load_dataset(path)


@pytest.mark.parametrize(
    ("pixels", "labels", "message"),
    [
        (np.full((7, 48, 48), -5), np.arange(7), "PrivateTest_pixel contains other values"),
        (np.zeros((7, 48, 48), complex), np.arange(7), "PrivateTest_pixel has the type complex128"),
        (np.zeros((7, 48, 48), np.uint8), np.arange(7) + 1, "integers from 0 to 6"),
        (np.zeros((7, 2304), np.uint8), np.arange(7), "expected .images, height, width"),
        (np.zeros((7, 48, 48), np.uint8), np.arange(6), "7 images and 6 labels"),
    ],
)
def test_hdf5_with_wrong_values_is_refused(tmp_path: Path, pixels: object, labels: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_dataset(_write_one_split(tmp_path / "a.h5", pixels, labels))


def test_one_split_cannot_be_trained_on_and_chosen_by(bars: DataSet) -> None:
    with pytest.raises(InputError, match="training and validation split"):
        train_and_validation(bars, "PublicTest", None)
