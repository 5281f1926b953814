"""Images read from files: the same pixels as in memory, and crops of whole pictures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.errors import InputError
from edgekit.models.data import image_files
from edgekit.models.data.few_shot import of_classes, require_persons_apart
from edgekit.models.data.image_files import ImageFiles, batches, decoded
from edgekit.models.data.readers import list_files, load_dataset
from tests.images import write_image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        for index in range(70):
            file = tmp_path / "test" / name / f"{index}.png"
            write_image(file, generator.integers(0, 255, (12, 16, 3), dtype=np.uint8))
    return tmp_path


def everything(labels: dict[str, NDArray[np.int64]], *_: object) -> dict[str, tuple[str, NDArray[np.int64]]]:
    return {name: (name, np.arange(len(part))) for name, part in labels.items()}


def files_of(folder: Path) -> ImageFiles:
    return list_files(folder, everything).splits["test"]  # type: ignore[arg-type]


def test_batches_from_files_are_the_images_in_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "_BATCH_IMAGES", 40)
    whole = load_dataset(folder, 8, fit="clip").split("test")
    parts = list(batches(files_of(folder), 8))
    assert [len(part) for part in parts] == [40, 40, 40, 40, 40, 10]
    np.testing.assert_array_equal(np.concatenate([part.images for part in parts]), whole.images)
    np.testing.assert_array_equal(np.concatenate([part.labels for part in parts]), whole.labels)
    (at_once,) = decoded([files_of(folder)], 8)
    np.testing.assert_array_equal(at_once.images, whole.images)
    assert next(batches(whole, 8)) is whole


def test_classes_of_files_are_renumbered_as_those_in_memory(folder: Path) -> None:
    whole = load_dataset(folder, 8, fit="clip").split("test")
    (part,) = decoded([of_classes(files_of(folder), (2, 0))], 8)
    expected = of_classes(whole, (2, 0))
    np.testing.assert_array_equal(part.images, expected.images)
    np.testing.assert_array_equal(part.labels, expected.labels)


def test_gray_pictures_have_one_channel_unless_another_has_colours(folder: Path) -> None:
    for name in ("a", "b", "c"):
        for file in (folder / "test" / name).iterdir():
            if (name, file.name) != ("c", "69.png"):
                assert cv2.imwrite(str(file), np.full((12, 16), 7, np.uint8))
    files = files_of(folder)
    assert [part.images.shape[-1] for part in batches(files, 8)] == [1, 3]
    some = files.subset(np.arange(210) < 5)
    assert [part.images.shape[-1] for part in decoded([some, files], 8)] == [3, 3]
    assert decoded([some], 8)[0].images.shape[-1] == 1


def test_a_damaged_file_is_named_in_one_line(folder: Path) -> None:
    (folder / "test/b/3.png").write_bytes(b"damaged")
    files = files_of(folder)
    for read in (lambda: list(batches(files, 8)), lambda: decoded([files], 8)):
        with pytest.raises(InputError, match=r"test/b/3\.png' cannot be decoded") as caught:
            read()
        assert "\n" not in str(caught.value)


def test_a_person_on_both_sides_is_refused(folder: Path) -> None:
    files = files_of(folder)
    persons = np.array([f"person-{index // 10}" for index in range(len(files))])
    grouped = ImageFiles(files.where, files.read, files.paths, files.labels, files.names, persons)
    apart = grouped.subset(np.arange(210) < 100), grouped.subset(np.arange(210) >= 100)
    require_persons_apart(*apart)
    with pytest.raises(InputError, match="'person-9' is in the training and in the test images, as are 0 other"):
        require_persons_apart(apart[0], grouped.subset(np.arange(210) >= 95))
    tracks = np.array(["track-1"] * len(files))  # each run numbers its tracks from 1
    numbered = ImageFiles(files.where, files.read, files.paths, files.labels, files.names, tracks)
    require_persons_apart(numbered.subset(np.arange(210) < 100), numbered.subset(np.arange(210) >= 100))
