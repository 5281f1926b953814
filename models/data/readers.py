"""The forms a data set comes in:

- folders `<split>/<class>/*.png|jpg|…`, also one level down, also inside a .tar or .tar.gz;
- FER-2013 as folders `{train,test}/<class>/<Usage>_<n>.jpg`, where the file name restores the official split;
- Kaggle's `fer2013.csv` (columns emotion, pixels, Usage);
- the EdgeCNN authors' HDF5 (`<Usage>_pixel`, `<Usage>_label`).

Class folders with the seven expressions' names are put in their usual order, others in alphabetical order.
"""

from __future__ import annotations

import csv
import re
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.contract import CropSpec
from edgekit.device.imaging import IMAGE_SUFFIXES, decode_image, resize
from edgekit.errors import InputError
from edgekit.models.data import EXPRESSIONS, DataSet, ImageSet
from edgekit.preprocess import ImageU8, resize_image

# Called with (done, total or None) while images are read.
Progress = Callable[[int, int | None], None]

_USAGES = ("Training", "PublicTest", "PrivateTest")
_USAGE_PREFIX = re.compile(r"(Training|PublicTest|PrivateTest)_\d+\.")
_ALIASES = {"anger": "angry", "happiness": "happy", "sadness": "sad", "surprised": "surprise", "fearful": "fear"}
_ALIASES |= {"disgusted": "disgust"}
_FER_SIDE_PX = 48
_MAX_FILE_BYTES = 64 << 20
# Names are kept in an array of fixed width, and a .tar can hold names of any length.
_MAX_NAME_CHARACTERS = 500
_MAX_DATA_BYTES = 2 << 30


def load_dataset(path: Path, size_px: int = _FER_SIDE_PX, progress: Progress | None = None) -> DataSet:
    """Read a data set.

    Args:
        path: A folder, a .tar/.tar.gz/.tgz of one, a .csv or an .h5/.hdf5 file.
        size_px: Height and width images are resized to.
        progress: Called while reading.

    Raises:
        InputError: The path does not exist, its form is not recognised, or a part of it is damaged.
    """
    if not path.exists():
        raise InputError(f"data '{path}' does not exist: give a folder, a .tar.gz, a fer2013.csv or an .h5 file")
    report = progress or _silent
    if path.is_dir():
        return _from_files(path, _folder_files(path), size_px, report)
    name = path.name.lower()
    if name.endswith((".tar", ".tar.gz", ".tgz")):
        return _from_files(path, _tar_files(path), size_px, report)
    if name.endswith(".csv"):
        return _from_csv(path, size_px, report)
    if name.endswith((".h5", ".hdf5")):
        return _from_hdf5(path, size_px)
    raise InputError(f"data '{path}' is none of: a folder, .tar, .tar.gz, .csv, .h5")


def _silent(_done: int, _total: int | None) -> None:
    pass


def canonical_class(name: str) -> str:
    """Return the usual name of an expression for its variants ('Anger' → 'angry'); other names unchanged."""
    lower = name.strip().lower()
    lower = _ALIASES.get(lower, lower)
    return lower if lower in EXPRESSIONS else name


def _folder_files(folder: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file():
            yield PurePosixPath(file.relative_to(folder).as_posix()), file.read_bytes()


def _tar_files(path: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    # Members are read in memory and never written to disk, so their names cannot escape anywhere.
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                if not member.isfile() or name.suffix.lower() not in IMAGE_SUFFIXES:
                    continue
                if member.size > _MAX_FILE_BYTES:
                    raise InputError(f"data '{path}': member '{name}' has {member.size} bytes: too large for an image")
                stream = archive.extractfile(member)
                assert stream is not None
                yield name, stream.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(f"data '{path}' is a damaged archive: {error}") from error


def _from_files(path: Path, files: Iterable[tuple[PurePosixPath, bytes]], size_px: int, report: Progress) -> DataSet:
    entries: list[tuple[PurePosixPath, ImageU8]] = []
    crop = CropSpec(0.0, False, (size_px, size_px), (size_px, size_px))
    for name, data in files:
        if len(str(name)) > _MAX_NAME_CHARACTERS:
            raise InputError(
                f"data '{path}': a file's path has {len(str(name))} characters: at most {_MAX_NAME_CHARACTERS}"
            )
        if len(name.parts) < 3:
            raise InputError(
                f"data '{path}': '{name}' is not below <split>/<class>/: arrange it as train/<class>/…, val/<class>/…"
            )
        entries.append((name, _single_channel_if_gray(_to_size(decode_image(data, f"{path}/{name}"), crop))))
        if len(entries) % 256 == 0:
            report(len(entries), None)
    if not entries:
        raise InputError(f"data '{path}' holds no image below <split>/<class>/")
    report(len(entries), len(entries))
    by_usage = all(_USAGE_PREFIX.match(name.name) for name, _ in entries)
    classes = _ordered({canonical_class(name.parts[-2]) for name, _ in entries})
    root = _common_start([name.parts[:-3] for name, _ in entries])
    groups: dict[str, list[tuple[ImageU8, int]]] = defaultdict(list)
    names: dict[str, list[str]] = defaultdict(list)
    for name, image in sorted(entries, key=lambda entry: _natural(entry[0])):
        split = name.name.partition("_")[0] if by_usage else name.parts[-3]
        groups[split].append((image, classes.index(canonical_class(name.parts[-2]))))
        names[split].append("/".join(name.parts[root:]))
    gray = all(image.shape[-1] == 1 for _, image in entries)
    splits = {
        split: replace(_stack(groups[split], gray), names=np.array(names[split], np.str_))
        for split in _split_order(groups)
    }
    return DataSet(_dataset_name(path, classes, splits), classes, splits)


def _from_csv(path: Path, size_px: int, report: Progress) -> DataSet:
    groups: dict[str, list[tuple[ImageU8, int]]] = defaultdict(list)
    crop = CropSpec(0.0, False, (size_px, size_px), (size_px, size_px))
    with path.open(newline="", encoding="utf-8", errors="replace") as stream:
        reader = csv.DictReader(stream)
        try:
            columns = {column.strip().lower(): column for column in reader.fieldnames or []}
        except csv.Error as error:
            raise InputError(f"data '{path}' is a damaged CSV file: {error}") from error
        missing = [column for column in ("emotion", "pixels", "usage") if column not in columns]
        if missing:
            raise InputError(f"data '{path}' lacks the column {missing[0]!r}: expected emotion,pixels,Usage")
        emotion, pixels, usage = (columns[column] for column in ("emotion", "pixels", "usage"))
        try:
            for number, row in enumerate(reader, start=2):
                image, label = _csv_row(row[emotion], row[pixels], f"data '{path}', line {number}")
                groups[row[usage]].append((_to_size(image, crop), label))
                if number % 256 == 0:
                    report(number, None)
        except csv.Error as error:
            raise InputError(f"data '{path}' is a damaged CSV file: {error}") from error
    if not groups:
        raise InputError(f"data '{path}' has no rows")
    splits = {split: _stack(groups[split], gray=True) for split in _split_order(groups)}
    return DataSet(_dataset_name(path, EXPRESSIONS, splits), EXPRESSIONS, splits)


def _csv_row(emotion: str | None, pixels: str | None, where: str) -> tuple[ImageU8, int]:
    try:
        label = int(emotion or "")
        values = np.array((pixels or "").split(), np.int64)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{where}: not a FER-2013 row: {error}") from error
    if not 0 <= label < len(EXPRESSIONS):
        raise InputError(f"{where}: emotion {label} is not 0 to {len(EXPRESSIONS) - 1}")
    if len(values) != _FER_SIDE_PX**2:
        raise InputError(f"{where}: expected {_FER_SIDE_PX**2} pixels, found {len(values)}")
    if values.min() < 0 or values.max() > 255:
        raise InputError(f"{where}: pixels reach from {values.min()} to {values.max()}: expected 0 to 255")
    return values.astype(np.uint8).reshape(_FER_SIDE_PX, _FER_SIDE_PX, 1), label


def _from_hdf5(path: Path, size_px: int) -> DataSet:
    import h5py

    crop = CropSpec(0.0, False, (size_px, size_px), (size_px, size_px))
    splits: dict[str, ImageSet] = {}
    try:
        with h5py.File(path, "r") as file:
            for usage in _USAGES:
                if f"{usage}_pixel" not in file:
                    continue
                where = f"data '{path}', {usage}"
                images = _hdf5_numbers(file[f"{usage}_pixel"], f"{where}_pixel", 255)
                labels = _hdf5_numbers(file[f"{usage}_label"], f"{where}_label", len(EXPRESSIONS) - 1)
                splits[usage] = _hdf5_split(images.astype(np.uint8), labels.astype(np.int64).reshape(-1), crop, where)
    except (OSError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        raise InputError(f"data '{path}' is no HDF5 file of the EdgeCNN authors' form: {error}") from error
    if not splits:
        raise InputError(f"data '{path}' holds none of {', '.join(f'{usage}_pixel' for usage in _USAGES)}")
    return DataSet(_dataset_name(path, EXPRESSIONS, splits), EXPRESSIONS, splits)


def _hdf5_numbers(dataset: Any, where: str, largest: int) -> NDArray[Any]:
    """Return the values of an HDF5 data set that holds whole numbers from 0 to `largest`, whatever their type."""
    # External and virtual storage would read any other file its maker names.
    if dataset.external or dataset.is_virtual:
        raise InputError(f"{where} keeps its values in another file, which edgekit does not follow")
    if dataset.dtype.kind not in "iuf":
        raise InputError(f"{where} holds {dataset.dtype}: expected numbers from 0 to {largest}")
    # A file of some bytes can declare any size.
    if dataset.size * dataset.dtype.itemsize > _MAX_DATA_BYTES:
        raise InputError(f"{where} declares {dataset.shape}: more than {_MAX_DATA_BYTES >> 20} MiB")
    values = np.asarray(dataset)
    if values.size and not bool(((values >= 0) & (values <= largest) & (values == np.floor(values))).all()):
        raise InputError(f"{where} holds other values than whole numbers from 0 to {largest}")
    return values


def _hdf5_split(images: ImageU8, labels: NDArray[np.int64], crop: CropSpec, where: str) -> ImageSet:
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise InputError(f"{where}_pixel has shape {images.shape}: expected (images, height, width[, 1 or 3])")
    if len(images) != len(labels):
        raise InputError(f"{where} has {len(images)} images and {len(labels)} labels")
    if images.shape[1:3] != crop.resize_hw:
        # Colour stays in the file's order: resizing does not look at it.
        images = np.stack([_to_size(image, crop) for image in images])
    return ImageSet(images, labels)


def _to_size(image: ImageU8, crop: CropSpec) -> ImageU8:
    if image.ndim == 3 and image.shape[-1] == 1:
        image = image[..., 0]
    if image.ndim == 2:
        height, width = crop.resize_hw
        return (image if image.shape == (height, width) else resize(image, (width, height)))[..., np.newaxis]
    return resize_image(image, crop, resize)


def _single_channel_if_gray(image: ImageU8) -> ImageU8:
    if image.shape[-1] == 3 and bool((image[..., :1] == image[..., 1:]).all()):
        return image[..., :1]
    return image


def _stack(entries: list[tuple[ImageU8, int]], gray: bool) -> ImageSet:
    channels = 1 if gray else 3
    images = [np.broadcast_to(image, (*image.shape[:2], channels)) for image, _ in entries]
    return ImageSet(np.stack(images), np.array([label for _, label in entries], np.int64))


def _common_start(folders: list[tuple[str, ...]]) -> int:
    """Return how many leading parts all folders share."""
    first, last = min(folders), max(folders)
    return next(
        (index for index, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last))
    )


def _ordered(classes: set[str]) -> tuple[str, ...]:
    if classes <= set(EXPRESSIONS):
        return tuple(name for name in EXPRESSIONS if name in classes)
    return tuple(sorted(classes))


def _split_order(groups: Iterable[str]) -> list[str]:
    return sorted(groups, key=lambda name: (_USAGES.index(name) if name in _USAGES else len(_USAGES), name))


def _dataset_name(path: Path, classes: tuple[str, ...], splits: Iterable[str]) -> str:
    if classes == EXPRESSIONS and set(splits) <= set(_USAGES):
        return "fer2013"
    return path.resolve().name.partition(".")[0]


def _natural(name: PurePosixPath) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", str(name))]
