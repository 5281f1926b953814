"""CoOp's split files, CLIP's central square crop, and selection of images before decoding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgekit.errors import InputError
from edgekit.models.data.readers import load_dataset, to_clip_square
from tests.images import write_image

ROWS: dict[str, list[list[Any]]] = {
    "train": [["cats/0.png", 0, "maine coon"], ["cats/1.png", 1, "birman"], ["2.png", 0, "maine coon"]],
    "val": [["3.png", 1, "birman"]],
    "test": [["10.png", 1, "birman"], ["9.png", 0, "maine coon"]],
}


@pytest.fixture
def split_file(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for rows in ROWS.values():
        for file, _, _ in rows:
            path = tmp_path / "images" / file
            write_image(path, generator.integers(0, 255, (40, 60, 3), dtype=np.uint8))
    path = tmp_path / "split_zhou_Pets.json"
    path.write_text(json.dumps(ROWS))
    return path


def test_split_files_are_read_with_classes_in_the_order_of_their_numbers(split_file: Path) -> None:
    data = load_dataset(split_file, 24)
    assert data.name == "Pets"
    assert data.classes == ("maine coon", "birman")
    labels = {name: part.labels.tolist() for name, part in data.splits.items()}
    assert labels == {"train": [0, 0, 1], "val": [1], "test": [0, 1]}
    names = data.splits["train"].names
    assert names is not None
    assert names.tolist() == ["2.png", "cats/0.png", "cats/1.png"]
    assert data.splits["test"].images.shape == (2, 24, 24, 3)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "not a split file"),
        ("{}", "expected {"),
        ({**ROWS, "val": [["3.png", 1]]}, "entry 0 of 'val' must be"),
        ({**ROWS, "val": [["3.png", 1, "bengal"]]}, "class 1 has two names, 'birman' and 'bengal'"),
        ({**ROWS, "val": [["4.png", 1, "birman"]]}, r"lists '4\.png', which is not in"),
        ({**ROWS, "train": [["../x.png", 0, "maine coon"]]}, r"lists '\.\./x\.png', which is neither"),
    ],
)
def test_wrong_split_files_are_refused_in_one_line(split_file: Path, document: object, message: str) -> None:
    split_file.write_text(document if isinstance(document, str) else json.dumps(document))
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(split_file, 24)
    assert "\n" not in str(caught.value)


def test_pictures_not_picked_are_not_decoded(split_file: Path) -> None:
    (split_file.parent / "images/10.png").write_bytes(b"damaged")
    with pytest.raises(InputError, match="cannot be decoded"):
        load_dataset(split_file, 24)
    data = load_dataset(split_file, 24, select=lambda *_: {"few": ("train", np.array([2, 0]))})
    assert list(data.splits) == ["few"]
    names = data.splits["few"].names
    assert names is not None
    assert names.tolist() == ["cats/1.png", "2.png"]


@pytest.mark.parametrize("size_wh", [(60, 40), (40, 61), (24, 24), (10, 13)])
def test_the_central_square_is_that_of_clips_authors(size_wh: tuple[int, int]) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    bicubic = transforms.InterpolationMode.BICUBIC
    theirs = transforms.Compose([transforms.Resize(24, interpolation=bicubic), transforms.CenterCrop(24)])
    image = np.random.default_rng(0).integers(0, 255, (size_wh[1], size_wh[0], 3), dtype=np.uint8)
    np.testing.assert_array_equal(to_clip_square(image[..., ::-1], 24), np.asarray(theirs(Image.fromarray(image))))
    gray = image[..., 0]
    np.testing.assert_array_equal(to_clip_square(gray, 24)[..., 0], np.asarray(theirs(Image.fromarray(gray))))


@pytest.mark.parametrize(("side", "size_px"), [(47, 48), (309, 48), (142, 224)])
def test_a_square_stays_one(side: int, size_px: int) -> None:
    # size / side * side is less than size for these in floating point.
    assert to_clip_square(np.zeros((side, side, 3), np.uint8), size_px).shape == (size_px, size_px, 3)
