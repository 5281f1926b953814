"""Quality check of a data set: counts, unreadable and blank images, duplicates, conflicting labels.

Two images are identical if their stored pixels are equal. A gray image stored as RGB counts as a gray image.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path, PurePosixPath

import numpy as np

from edgekit.device.imaging import decode_image
from edgekit.errors import InputError
from edgekit.models.callbacks import Notify, Progress, ignore_message
from edgekit.models.data import EXPRESSIONS, usual_split
from edgekit.models.data.fer2013 import read_splits
from edgekit.models.data.files import Files
from edgekit.models.data.layout import require_contempt, split_order
from edgekit.models.data.readers import dataset_name, is_of_files, open_layout, single_channel_if_gray
from edgekit.preprocess import ImageU8
from edgekit.text import counted


@dataclass(frozen=True)
class Record:
    """One image of a data set. `problem` is the reason why it is unreadable; the fields after it are then unset.

    `digest` is equal for equal pixels; `mode` is "gray", "colour" or "gray stored as colour".
    """

    name: str
    split: str
    class_name: str
    problem: str | None = None
    digest: bytes = b""
    size_wh: tuple[int, int] = (0, 0)
    mode: str = ""
    is_blank: bool = False


@dataclass(frozen=True)
class Scan:
    """All images of a data set in file order."""

    name: str
    classes: tuple[str, ...]
    splits: tuple[str, ...]
    records: tuple[Record, ...]


@dataclass(frozen=True)
class Findings:
    """Result of the check. A group is a tuple of records of identical images.

    - `repeated`: groups with several images in one split; `surplus` is the number of images beyond one per split.
    - `crossing`: groups in several splits; `pairs` counts them for each pair of splits. `leaking` counts those with
      images in the training split. `training` is the name of the training split. Without a training split, `leaking`
      and `training` are None.
    - `conflicting`: groups with several labels.
    - `imbalance`: size of the largest class divided by that of the smallest one, in the training split, or in all
      splits together if there is no training split; None if a class has no image there.
    """

    counts: Mapping[str, Mapping[str, int]]
    distinct: int
    unreadable: tuple[Record, ...]
    blank: tuple[Record, ...]
    repeated: tuple[tuple[Record, ...], ...]
    surplus: int
    crossing: tuple[tuple[Record, ...], ...]
    pairs: Mapping[tuple[str, str], int]
    training: str | None
    leaking: int | None
    conflicting: tuple[tuple[Record, ...], ...]
    sizes: Mapping[tuple[int, int], int]
    modes: Mapping[str, int]
    imbalance: float | None

    @property
    def faults(self) -> tuple[str, ...]:
        """Short descriptions of the faults with their counts; images repeated within a split are not a fault."""
        found = (
            (len(self.unreadable), "unreadable image", ""),
            (len(self.blank), "blank image", ""),
            (len(self.crossing), "group", " of identical images in several splits"),
            (len(self.conflicting), "group", " of identical images with different labels"),
        )
        return tuple(f"{counted(count, noun)}{kind}" for count, noun, kind in found if count)


def scan_dataset(
    path: Path,
    contempt: str = "drop",
    progress: Progress = lambda _done, _total: None,
    notify: Notify = ignore_message,
) -> Scan:
    """Read all images of a data set of any format; unreadable images become records with a `problem`.

    Raises:
        InputError: The path does not exist, its format is not recognised, an archive, CSV or HDF5 file is damaged, or
            an HDF5 file has no images.
    """
    if is_of_files(path):
        with open_layout(path, contempt, notify) as (files, layout):
            places = [(entry.name, entry.split, entry.class_name) for entry in layout.entries]
            images = (_read(files, entry.path) for entry in layout.entries)  # read one at a time by `_collect`
            records = _collect(places, images, progress)
        name, classes = layout.name, layout.classes
    else:
        require_contempt(contempt, EXPRESSIONS)
        records = _scan_arrays(path, progress)  # a .csv or HDF5 file of FER-2013, whose classes are the expressions
        name, classes = None, EXPRESSIONS
    splits = tuple(split_order({record.split for record in records}))
    return Scan(name or dataset_name(path, classes, splits), classes, splits, records)


def _scan_arrays(path: Path, progress: Progress) -> tuple[Record, ...]:
    """Return the records of the images in a .csv or HDF5 file of FER-2013."""
    parts = read_splits(path, square=None, report=progress)  # None: in the stored size
    places: list[tuple[str, str, str]] = []
    for split in split_order(parts):
        for number, label in enumerate(parts[split].labels, start=1):
            places.append((f"{split} image {number}", split, EXPRESSIONS[label]))
    if not places:
        raise InputError(f"data '{path}' has no images")
    # Stored as RGB; decoded image files are BGR.
    images = (image[..., ::-1] for split in split_order(parts) for image in parts[split].images)
    return _collect(places, images, progress)


def analyse(scan: Scan) -> Findings:
    """Return counts, duplicates and faults of a scanned data set."""
    readable = [record for record in scan.records if record.problem is None]
    by_digest: dict[bytes, list[Record]] = defaultdict(list)
    for record in readable:
        by_digest[record.digest].append(record)
    groups = [tuple(group) for group in by_digest.values() if len(group) > 1]
    crossing = tuple(group for group in groups if len(_splits(group)) > 1)
    training = usual_split(scan.splits, "train")
    leaking = [group for group in crossing if training in _splits(group)]
    counts = {split: dict.fromkeys(scan.classes, 0) for split in scan.splits}
    for record in scan.records:
        counts[record.split][record.class_name] += 1
    return Findings(
        counts=counts,
        distinct=len(by_digest),
        unreadable=tuple(record for record in scan.records if record.problem is not None),
        blank=tuple(record for record in readable if record.is_blank),
        # A group with more images than splits has several images in one of them.
        repeated=tuple(group for group in groups if len(group) > len(_splits(group))),
        surplus=sum(len(group) - len(_splits(group)) for group in groups),
        crossing=crossing,
        pairs=_crossing_pairs(scan, crossing),
        training=training,
        leaking=None if training is None else len(leaking),
        conflicting=tuple(group for group in groups if len({record.class_name for record in group}) > 1),
        sizes=dict(Counter(record.size_wh for record in readable).most_common()),
        modes=dict(Counter(record.mode for record in readable).most_common()),
        imbalance=_imbalance(scan, training),
    )


def _splits(group: tuple[Record, ...]) -> set[str]:
    """Return the splits that contain images of a group."""
    return {record.split for record in group}


def _crossing_pairs(scan: Scan, crossing: tuple[tuple[Record, ...], ...]) -> dict[tuple[str, str], int]:
    """Return for each pair of splits the number of groups that have images in both, without pairs of none."""
    pairs = {}
    for pair in combinations(scan.splits, 2):
        count = sum(set(pair) <= _splits(group) for group in crossing)
        if count:
            pairs[pair] = count
    return pairs


def _imbalance(scan: Scan, training: str | None) -> float | None:
    """Return `Findings.imbalance`; `training` is the training split, if there is one."""
    considered = [record for record in scan.records if training is None or record.split == training]
    sizes = Counter(record.class_name for record in considered)
    smallest = min(sizes[name] for name in scan.classes)
    return max(sizes.values()) / smallest if smallest else None


def _read(files: Files, path: PurePosixPath) -> ImageU8 | InputError:
    """Return the pixels of an image file, or the error if it cannot be read."""
    try:
        return decode_image(files.read(path), str(path))
    except InputError as error:
        return error


def _collect(
    places: list[tuple[str, str, str]], images: Iterator[ImageU8 | InputError], progress: Progress
) -> tuple[Record, ...]:
    """Return the records of images; `places` has name, split and class of each.

    An unreadable image is given by its error, in the place of its pixels.
    """
    records: list[Record] = []
    for place, image in zip(places, images, strict=True):
        record = Record(*place, problem=str(image)) if isinstance(image, InputError) else _record(place, image)
        records.append(record)
        if len(records) % 256 == 0 or len(records) == len(places):  # not for each image, and at the end
            progress(len(records), len(places))
    return tuple(records)


def _record(place: tuple[str, str, str], image: ImageU8) -> Record:
    """Return the record of a readable image (H, W) or (H, W, C); `place` is its name, split and class."""
    image = image if image.ndim == 3 else image[..., np.newaxis]
    pixels = np.ascontiguousarray(single_channel_if_gray(image))
    height, width, channels = pixels.shape
    gray_mode = "gray" if image.shape[-1] == 1 else "gray stored as colour"
    mode = "colour" if channels > 1 else gray_mode
    digest = hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).digest()
    is_blank = bool((pixels == pixels[0, 0]).all())
    return Record(*place, problem=None, digest=digest, size_wh=(width, height), mode=mode, is_blank=is_blank)
