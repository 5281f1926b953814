"""The forms a data set comes in:

- folders `<split>/<class>/*.png|jpg|…`, also some levels down, also inside a .tar or .tar.gz;
- folders `<class>/*.png` without splits, as CK+ is found: one split, `all`;
- FER-2013 as folders `{train,test}/<class>/<Usage>_<n>.jpg`, where the file name restores the official split;
- RAF-DB, see `edgekit.models.data.rafdb`;
- FER-2013 as one file, `fer2013.csv` or HDF5, see `edgekit.models.data.fer2013`.

Class folders with the seven expressions' names are put in their usual order, others in alphabetical order.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from edgekit.device.imaging import decode_image
from edgekit.errors import InputError
from edgekit.models.data import EXPRESSIONS, DataSet
from edgekit.models.data.fer2013 import SIDE_PX, USAGES, read_csv, read_hdf5
from edgekit.models.data.files import Say, open_files
from edgekit.models.data.layout import lay_out, split_order
from edgekit.models.data.pixels import single_channel_if_gray, stack, to_size
from edgekit.preprocess import ImageU8

# Called with (done, total or None) while images are read.
Progress = Callable[[int, int | None], None]


def load_dataset(
    path: Path,
    size_px: int = SIDE_PX,
    progress: Progress | None = None,
    *,
    contempt: str = "drop",
    say: Say = lambda _: None,
) -> DataSet:
    """Read a data set.

    Args:
        path: A folder, a .tar/.tar.gz/.tgz of one, a .csv or an .h5/.hdf5 file.
        size_px: Height and width images are resized to.
        progress: Called while reading.
        contempt: What becomes of contempt beside the seven expressions: "drop", "keep", or a class that takes it in.
        say: Called with a line for each thing a user should know.

    Raises:
        InputError: The path does not exist, its form is not recognised, or a part of it is damaged.
    """
    report = progress or (lambda _done, _total: None)
    if is_of_files(path):
        return _from_files(path, size_px, report, contempt, say)
    splits = read_csv(path, size_px, report) if path.name.lower().endswith(".csv") else read_hdf5(path, size_px)
    ordered = {name: splits[name] for name in split_order(splits)}
    return DataSet(dataset_name(path, EXPRESSIONS, ordered), EXPRESSIONS, ordered)


def is_of_files(path: Path) -> bool:
    """Return whether a data set is a folder or an archive of image files, or else one file of numbers.

    Raises:
        InputError: It does not exist or is of another kind.
    """
    if not path.exists():
        raise InputError(f"data '{path}' does not exist: give a folder, a .tar.gz, a fer2013.csv or an .h5 file")
    name = path.name.lower()
    if path.is_dir() or name.endswith((".tar", ".tar.gz", ".tgz")):
        return True
    if name.endswith((".csv", ".h5", ".hdf5")):
        return False
    raise InputError(f"data '{path}' is none of: a folder, .tar, .tar.gz, .csv, .h5")


def dataset_name(path: Path, classes: tuple[str, ...], splits: Iterable[str]) -> str:
    """Return what a data set is called that does not tell itself."""
    if classes == EXPRESSIONS and set(splits) <= set(USAGES):
        return "fer2013"
    return path.resolve().name.partition(".")[0] or path.resolve().name


def _from_files(path: Path, size_px: int, report: Progress, contempt: str, say: Say) -> DataSet:
    images: list[ImageU8] = []
    with open_files(path) as files:
        layout = lay_out(files, str(path), contempt, say)
        for placed in layout.entries:
            image = decode_image(files.read(placed.path), f"{path}/{placed.path}")
            images.append(single_channel_if_gray(to_size(image, size_px)))
            if len(images) % 256 == 0 or len(images) == len(layout.entries):
                report(len(images), len(layout.entries))
    gray = all(image.shape[-1] == 1 for image in images)
    groups: dict[str, list[int]] = defaultdict(list)
    for index in sorted(range(len(images)), key=lambda index: _natural(layout.entries[index].path)):
        groups[layout.entries[index].split].append(index)
    splits = {}
    for split in split_order(groups):
        chosen = [(images[index], layout.classes.index(layout.entries[index].class_name)) for index in groups[split]]
        names = np.array([layout.entries[index].name for index in groups[split]], np.str_)
        splits[split] = replace(stack(chosen, gray), names=names)
    return DataSet(layout.name or dataset_name(path, layout.classes, splits), layout.classes, splits)


def _natural(name: PurePosixPath) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(name))]
