"""`load_dataset` reads a data set in any of these formats:

- folders `<split>/<class>/*.png|jpg|…`, also in subfolders, also in a .tar or .tar.gz;
- folders `<class>/*.png` without splits, such as CK+: one split, `all`;
- FER-2013 as folders `{train,test}/<class>/<Usage>_<n>.jpg`, whose file names contain the official split;
- FER-2013 as one file, `fer2013.csv` or HDF5: see `edgekit.models.data.fer2013`;
- RAF-DB: see `edgekit.models.data.rafdb`;
- CoOp's `split_zhou_*.json` beside a folder of images: see `edgekit.models.data.coop`;
- ImageNet, its shifted copies and FGVC-Aircraft with their lists: see `edgekit.models.data.listed`.

Classes named after the seven expressions get the label order of FER-2013, others alphabetical order.

    dataset = load_dataset(Path("fer2013.tar.gz"))
    dataset.split("Training").images  # uint8 (28709, 48, 48, 1)
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.device.imaging import decode_image
from edgekit.errors import InputError
from edgekit.files import real_path
from edgekit.models.callbacks import Notify, Progress, ignore_message
from edgekit.models.data import EXPRESSIONS, DataSet, ImageSet
from edgekit.models.data.coop import is_split_file, open_split_file
from edgekit.models.data.disk import ImageCache, folder_on_disk, new_array
from edgekit.models.data.fer2013 import SIDE_PX, USAGES, read_splits
from edgekit.models.data.files import ARCHIVE_SUFFIXES, Files, open_files
from edgekit.models.data.image_files import ImageFiles
from edgekit.models.data.layout import Layout, find_layout, require_contempt, split_order
from edgekit.models.data.listed import is_listed, read_listed
from edgekit.models.data.pixels import DataFit, single_channel_if_gray, to_size
from edgekit.preprocess import ImageU8
from edgekit.text import natural_key

Labels = Mapping[str, NDArray[np.int64]]
Groups = Mapping[str, NDArray[np.str_] | None]
# For each new split: the old split and the indices of its images. Other images are not decoded. `Select` computes a
# selection from the labels of each split, the classes, and the groups of each split.
Selection = Mapping[str, tuple[str, NDArray[np.int64]]]
Select = Callable[[Labels, tuple[str, ...], Groups], Selection]


def load_dataset(
    path: Path,
    size_px: int = SIDE_PX,
    progress: Progress | None = None,
    *,
    contempt: str = "drop",
    notify: Notify = ignore_message,
    fit: DataFit = "square",
    select: Select | None = None,
    cache: ImageCache = "memory",
    cache_folder: Path = Path(),
) -> DataSet:
    """Read a data set.

    Args:
        path: A folder, a .tar/.tar.gz/.tgz archive, a .csv, an .h5/.hdf5 or a split_zhou_*.json file.
        size_px: Height and width of the resized images.
        progress: Called with (images read, images in total or None).
        contempt: Treatment of the class contempt in addition to the seven expressions: "drop", "keep", or the name
            of the class that its images are counted as.
        notify: Called with messages about removed images and similar decisions.
        fit: How images that are not square become square: that of the contract they are read for.
        select: Selects images before they are decoded; default: all.
        cache: Where the decoded images of image files are kept; those of .csv and HDF5 files are kept in memory.
        cache_folder: Folder of those that are kept on disk.

    Raises:
        InputError: The path does not exist, its format is not recognised, the data is damaged, or a .csv or HDF5 file
            is to be kept on disk.
    """
    report = progress or (lambda _done, _total: None)
    square = functools.partial(to_size, size_px=size_px, fit=fit)
    if is_split_file(path) or is_of_files(path):
        with open_layout(path, contempt, notify) as (files, layout):
            chosen = _chosen(layout, select)
            size_bytes = 3 * size_px**2 * sum(map(len, chosen.values()))
            folder = folder_on_disk(size_bytes, cache, cache_folder, notify)
            return _read_images(files, layout, path, square, report, chosen, folder)
    require_contempt(contempt, EXPRESSIONS)
    if cache == "disk":
        raise InputError(
            f"data '{path}' is no folder or archive of images: its images stay in memory, leave out --cache-images disk"
        )
    splits = read_splits(path, square, report)
    ordered = {name: splits[name] for name in split_order(splits)}
    name = dataset_name(path, EXPRESSIONS, ordered)
    if select:
        labels = {name: part.labels for name, part in ordered.items()}
        selection = select(labels, EXPRESSIONS, dict.fromkeys(ordered))
        ordered = {new: ordered[old].subset(chosen) for new, (old, chosen) in selection.items()}
    return DataSet(name, EXPRESSIONS, ordered)


def is_of_files(path: Path) -> bool:
    """Return whether a data set consists of image files (a folder or an archive); else it is a .csv or HDF5 file.

    Raises:
        InputError: The path does not exist or has an unknown suffix.
    """
    if not path.exists():
        raise InputError(f"data '{path}' does not exist: expected a folder, a .tar.gz, a fer2013.csv or an .h5 file")
    name = path.name.lower()
    if path.is_dir() or name.endswith(ARCHIVE_SUFFIXES):
        return True
    if name.endswith((".csv", ".h5", ".hdf5")):
        return False
    raise InputError(f"data '{path}' has an unknown format: expected a folder, .tar, .tar.gz, .csv, .h5 or .json")


@dataclass(frozen=True)
class FileSets:
    """A data set whose images stay in their files: name, classes in label order, and splits by name."""

    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, ImageFiles]


def is_in_files(path: Path) -> bool:
    """Return whether each image of a data set can be read at any time: it is a folder, or a split file beside one."""
    return is_split_file(path) or path.is_dir()


def list_files(path: Path, select: Select, *, contempt: str = "drop", notify: Notify = ignore_message) -> FileSets:
    """Return the image files of a data set for which `is_in_files` holds; the arguments are those of `load_dataset`.

    Raises:
        InputError: The path does not exist, or the arrangement of the files is not recognised.
    """
    with open_layout(path, contempt, notify) as (files, layout):
        splits = {
            split: ImageFiles(
                str(path),
                files.read,
                tuple(layout.entries[index].path for index in indices),
                *_facts(layout, indices),
            )
            for split, indices in _chosen(layout, select).items()
        }
    return FileSets(_name(layout, path), layout.classes, splits)


def dataset_name(path: Path, classes: tuple[str, ...], splits: Iterable[str]) -> str:
    """Return the name of a data set whose format contains no name: fer2013, or the file name without suffixes."""
    if classes == EXPRESSIONS and set(splits) <= set(USAGES):
        return "fer2013"
    return real_path(path).name.partition(".")[0] or real_path(path).name


@contextmanager
def open_layout(path: Path, contempt: str, notify: Notify) -> Iterator[tuple[Files, Layout]]:
    """Open a data set of image files with the split and class of each file.

    Raises:
        InputError: The arrangement of the files is not recognised, or the archive is damaged.
    """
    if is_split_file(path):
        with open_split_file(path) as opened:
            require_contempt(contempt, opened[1].classes)
            yield opened
        return
    if path.is_dir() and is_listed(path):
        listed = read_listed(path, notify)
        require_contempt(contempt, listed[1].classes)
        yield listed
        return
    with open_files(path, notify) as files:
        yield files, find_layout(files, str(path), contempt, notify)


def _read_images(
    files: Files,
    layout: Layout,
    path: Path,
    square: Callable[[ImageU8], ImageU8],
    report: Progress,
    chosen: Mapping[str, Sequence[int]],
    folder: Path | None,
) -> DataSet:
    """Return the chosen entries, with one channel if all images are gray; the pixels are in a file in `folder`."""
    places = defaultdict(list)
    for place, index in enumerate(index for indices in chosen.values() for index in indices):
        places[index].append(place)
    total = sum(map(len, chosen.values()))
    pixels = np.empty((0, 1, 1, 1), np.uint8)
    unreadable: list[str] = []
    for done, index in enumerate(sorted(places), start=1):  # the fastest order to read
        entry = layout.entries[index]
        content = files.read(entry.path)
        try:
            image = single_channel_if_gray(square(decode_image(content, f"{path}/{entry.path}")))
        except InputError as error:
            unreadable.append(str(error))
            continue
        if image.shape[-1] > pixels.shape[-1] or not len(pixels):
            gray, pixels = pixels, new_array(folder, (total, *image.shape))
            if len(gray):
                pixels[:] = gray
        pixels[places[index]] = image
        if done % 256 == 0 or done == len(places):
            report(done, len(places))
    if unreadable:
        count = f"{len(unreadable):,} of {len(places):,} images cannot be read"
        raise InputError(f"{count} (see `edgekit data check {path}`): {unreadable[0]}")
    splits, start = {}, 0
    for split, indices in chosen.items():
        labels, names, groups = _facts(layout, indices)
        splits[split] = ImageSet(pixels[start : start + len(indices)], labels, names=names, groups=groups)
        start += len(indices)
    return DataSet(_name(layout, path), layout.classes, splits)


def _facts(
    layout: Layout, indices: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.str_], NDArray[np.str_] | None]:
    """Return labels, names and, if all are known, groups of these entries."""
    numbers = {name: number for number, name in enumerate(layout.classes)}
    entries = [layout.entries[index] for index in indices]
    return (
        np.array([numbers[entry.class_name] for entry in entries], np.int64),
        np.array([entry.name for entry in entries], np.str_),
        _groups(layout, indices),
    )


def _groups(layout: Layout, indices: Sequence[int]) -> NDArray[np.str_] | None:
    """Return the groups of these entries, if all are known."""
    groups = [layout.entries[index].group for index in indices]
    return np.array(groups, np.str_) if all(groups) else None


def _name(layout: Layout, path: Path) -> str:
    return layout.name or dataset_name(path, layout.classes, {entry.split for entry in layout.entries})


def _chosen(layout: Layout, select: Select | None) -> dict[str, list[int]]:
    """Return the indices of the entries of each split, in natural order of their paths."""
    of_split: dict[str, list[int]] = defaultdict(list)
    for index in sorted(range(len(layout.entries)), key=lambda index: natural_key(layout.entries[index].path)):
        of_split[layout.entries[index].split].append(index)
    ordered = {split: of_split[split] for split in split_order(of_split)}
    if select is None:
        return ordered
    numbers = {name: number for number, name in enumerate(layout.classes)}
    labels = {
        split: np.array([numbers[layout.entries[index].class_name] for index in indices], np.int64)
        for split, indices in ordered.items()
    }
    groups = {split: _groups(layout, indices) for split, indices in ordered.items()}
    selection = select(labels, layout.classes, groups)
    return {new: [ordered[old][index] for index in indices] for new, (old, indices) in selection.items()}
