"""Data sets of noise in the folder layout of CoOp: the eleven data sets of its tables, and four ImageNet variants."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

CLASSES = ("tench", "sunglasses", "sunglasses", "crane bird")
FOLDERS = ("n01440764", "n04355933", "n04356056", "n02012849")
# Folder, name of the split file, folder of the images.
SPLIT_FILES = (
    ("caltech-101", "Caltech101", "101_ObjectCategories"),
    ("oxford_pets", "OxfordPets", "images"),
    ("stanford_cars", "StanfordCars", "cars_train"),
    ("oxford_flowers", "OxfordFlowers", "jpg"),
    ("food-101", "Food101", "images"),
    ("sun397", "SUN397", "SUN397"),
    ("dtd", "DescribableTextures", "images"),
    ("eurosat", "EuroSAT", "2750"),
    ("ucf101", "UCF101", "UCF-101-midframes"),
)
_COUNTS = {"train": 3, "val": 2, "test": 2}


def make_imagenet(data: Path) -> None:
    """Make `imagenet` with 4 classes, and its four variants; -A and -R have two of the classes."""
    for folder in ("imagenet", "imagenetv2", "imagenet-sketch", "imagenet-adversarial", "imagenet-rendition"):
        (data / folder).mkdir(parents=True)
        lines = [f"{name} {label}\n" for name, label in zip(FOLDERS, CLASSES, strict=True)]
        (data / folder / "classnames.txt").write_text("".join(lines))
    for number, name in enumerate(FOLDERS):
        _images(data / "imagenet/images/train" / name, number, 5)
        _images(data / "imagenet/images/val" / name, number, 2)
        _images(data / "imagenetv2/imagenetv2-matched-frequency-format-val" / str(number), number, 2)
        _images(data / "imagenet-sketch/images" / name, number, 2)
        if number >= 2:
            _images(data / "imagenet-adversarial/imagenet-a" / name, number, 2)
            _images(data / "imagenet-rendition/imagenet-r" / name, number, 2)
    (data / "imagenet-adversarial/imagenet-a/README.txt").write_text("adversarial")


def make_aircraft(data: Path) -> None:
    """Make `fgvc_aircraft` with 4 variants and its lists."""
    names = ("707-320", "A330-200", "DHC-8-100", "F/A-18")
    folder = data / "fgvc_aircraft"
    folder.mkdir(parents=True)
    (folder / "variants.txt").write_text("".join(f"{name}\n" for name in names))
    for split, (digit, count) in {"train": (1, 3), "val": (2, 2), "test": (3, 2)}.items():
        lines = []
        for number, name in enumerate(names):
            files = _images(folder / "images", number, count, f"{digit}{number}000")
            lines += [f"{file.stem} {name}\n" for file in files]
        (folder / f"images_variant_{split}.txt").write_text("".join(lines))


def make_split_file(data: Path, folder: str, name: str, images: str) -> None:
    """Make a data set with CoOp's split file."""
    rows: dict[str, list[Any]] = {split: [] for split in _COUNTS}
    for split, count in _COUNTS.items():
        for number in range(4):
            label = f"{name.lower()}_{number}"
            for file in _images(data / folder / images / label, number, count, f"{split}-"):
                rows[split].append([f"{label}/{file.name}", number, label])
    (data / folder / f"split_zhou_{name}.json").write_text(json.dumps(rows))


def make_all(data: Path) -> Path:
    """Make all fifteen data sets below `data`, and return it."""
    make_imagenet(data)
    make_aircraft(data)
    for each in SPLIT_FILES:
        make_split_file(data, *each)
    return data


def _images(folder: Path, number: int, count: int, prefix: str = "") -> list[Path]:
    """Write images of 40 px height and 56 px width, whose colour depends on the class, and return their files.

    The classes 0 to 3 are blue, green, red, and blue and green.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for index in range(count):
        generator = np.random.default_rng((number, index, len(prefix)))
        image = generator.integers(0, 120, (40, 56, 3), dtype=np.uint8)
        image[..., [0, 1] if number == 3 else [number]] += 90
        files.append(folder / f"{prefix}{index:03d}.jpg")
        assert cv2.imwrite(str(files[-1]), image)
    return files
