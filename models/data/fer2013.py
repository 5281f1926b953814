"""FER-2013 as one file: Kaggle's `fer2013.csv`, and the EdgeCNN authors' HDF5 file."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import InputError
from edgekit.models.data import EXPRESSIONS, ImageSet
from edgekit.preprocess import ImageU8

USAGES = ("Training", "PublicTest", "PrivateTest")
SIDE_PX = 48
_MAX_DATA_BYTES = 2 << 30

# Resizes an image (H, W, 1) or (H, W, 3) BGR to a square, and converts BGR to RGB.
Square = Callable[[ImageU8], ImageU8]


def read_splits(path: Path, square: Square | None, report: Callable[[int, int | None], None]) -> dict[str, ImageSet]:
    """Return the splits of a .csv or HDF5 file; see `read_csv` and `read_hdf5`."""
    return read_csv(path, square, report) if path.name.lower().endswith(".csv") else read_hdf5(path, square)


def read_csv(path: Path, square: Square | None, report: Callable[[int, int | None], None]) -> dict[str, ImageSet]:
    """Return the splits of a CSV with the columns emotion, pixels, Usage.

    `square` changes each image; None: the images stay as stored, 48 x 48 pixels. `report` is called with the number of
    rows that were read, and None, because their total is not known.

    Raises:
        InputError: A column is missing or a row is invalid.
    """
    groups: dict[str, list[tuple[ImageU8, int]]] = defaultdict(list)
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as stream:
            reader = csv.DictReader(stream)
            columns = {column.strip().lower(): column for column in reader.fieldnames or []}
            missing = [column for column in ("emotion", "pixels", "usage") if column not in columns]
            if missing:
                raise InputError(f"data '{path}' lacks the column {missing[0]!r}: expected emotion,pixels,Usage")
            emotion, pixels, usage = (columns[column] for column in ("emotion", "pixels", "usage"))
            for done, row in enumerate(reader, start=1):
                where = f"data '{path}', line {reader.line_num}"
                image, label = _csv_row(row[emotion], row[pixels], where)
                split = (row[usage] or "").strip()
                if not split:
                    raise InputError(f"{where}: no Usage: expected one of {', '.join(USAGES)}")
                groups[split].append((square(image) if square else image, label))
                if done % 256 == 0:
                    report(done, None)
    except csv.Error as error:
        raise InputError(f"data '{path}' is a damaged CSV file: {error}") from error
    if not groups:
        raise InputError(f"data '{path}' has no rows")
    splits = {}
    for split, entries in groups.items():
        images, labels = zip(*entries, strict=True)
        splits[split] = ImageSet(_stack(images, gray=True), np.array(labels, np.int64))  # (N, H, W, 1)
    return splits


def read_hdf5(path: Path, square: Square | None) -> dict[str, ImageSet]:
    """Return the splits of an HDF5 file with the data sets `<Usage>_pixel` and `<Usage>_label`, such as Training_pixel.

    `square` changes each image; None: the images stay as stored.

    Raises:
        InputError: The file has another form, or contains other values than pixels and labels.
    """
    import h5py

    splits: dict[str, ImageSet] = {}
    try:
        with h5py.File(path, "r") as file:
            for usage in USAGES:
                if f"{usage}_pixel" not in file:
                    continue
                where = f"data '{path}', {usage}"
                images = _hdf5_numbers(file[f"{usage}_pixel"], f"{where}_pixel", 255)
                labels = _hdf5_numbers(file[f"{usage}_label"], f"{where}_label", len(EXPRESSIONS) - 1)
                splits[usage] = _hdf5_split(images.astype(np.uint8), labels.astype(np.int64).reshape(-1), square, where)
    except (OSError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        raise InputError(f"data '{path}' is not an HDF5 file in the EdgeCNN authors' format: {error}") from error
    if not splits:
        raise InputError(f"data '{path}' contains none of {', '.join(f'{usage}_pixel' for usage in USAGES)}")
    return splits


def _csv_row(emotion: str | None, pixels: str | None, where: str) -> tuple[ImageU8, int]:
    """Return the image (48, 48, 1) and the label of one row; `where` names the row in errors."""
    try:
        label = int(emotion or "")
        values = np.array((pixels or "").split(), np.int64)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{where}: not a row of FER-2013: {error}") from error
    if not 0 <= label < len(EXPRESSIONS):
        raise InputError(f"{where}: emotion {label} is not 0 to {len(EXPRESSIONS) - 1}")
    if len(values) != SIDE_PX**2:
        raise InputError(f"{where}: expected {SIDE_PX**2} pixels, found {len(values)}")
    if values.min() < 0 or values.max() > 255:
        raise InputError(f"{where}: pixels are {values.min()} to {values.max()}: expected 0 to 255")
    return values.astype(np.uint8).reshape(SIDE_PX, SIDE_PX, 1), label


def _hdf5_numbers(dataset: Any, where: str, largest: int) -> NDArray[Any]:
    """Return the values of an HDF5 data set of integers from 0 to `largest`, stored as any numeric type."""
    # External and virtual storage can refer to any other file on this machine.
    if dataset.external or dataset.is_virtual:
        raise InputError(f"{where} stores its values in another file, which edgekit does not read")
    if dataset.dtype.kind not in "iuf":
        raise InputError(f"{where} has the type {dataset.dtype}: expected numbers from 0 to {largest}")
    # A small file can declare any size.
    if dataset.size * dataset.dtype.itemsize > _MAX_DATA_BYTES:
        raise InputError(f"{where} declares the shape {dataset.shape}: more than {_MAX_DATA_BYTES >> 20} MiB")
    values = np.asarray(dataset)
    if values.size and not bool(((values >= 0) & (values <= largest) & (values == np.floor(values))).all()):
        raise InputError(f"{where} contains other values than integers from 0 to {largest}")
    return values


def _hdf5_split(images: ImageU8, labels: NDArray[np.int64], square: Square | None, where: str) -> ImageSet:
    """Return a split of images (N, H, W) or (N, H, W, C); `where` names it in errors.

    `square` changes each image; None: the images stay as stored.
    """
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or 0 in images.shape[1:]:
        raise InputError(f"{where}_pixel has shape {images.shape}: expected (images, height, width[, 1 or 3])")
    if len(images) != len(labels):
        raise InputError(f"{where} has {len(images)} images and {len(labels)} labels")
    if square and len(images):
        # Stored as RGB; `square` takes BGR and returns RGB.
        images = np.stack([square(image[..., ::-1]) for image in images])
    return ImageSet(images, labels)


def _stack(images: Iterable[ImageU8], gray: bool) -> ImageU8:
    """Return images of one size as one array (N, H, W, C), with one channel if `gray`, else three."""
    return np.stack([np.broadcast_to(image, (*image.shape[:2], 1 if gray else 3)) for image in images])
