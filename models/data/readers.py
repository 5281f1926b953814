"""`load_dataset` reads a data set in any of these formats:

- folders `<split>/<class>/*.png|jpg|…`, also in subfolders, also in a .tar or .tar.gz;
- folders `<class>/*.png` without splits, such as CK+: one split, `all`;
- FER-2013 as folders `{train,test}/<class>/<Usage>_<n>.jpg`, whose file names contain the official split;
- FER-2013 as one file, `fer2013.csv` or HDF5: see `edgekit.models.data.fer2013`;
- RAF-DB: see `edgekit.models.data.rafdb`;
- CoOp's `split_zhou_*.json` beside a folder of images: see `edgekit.models.data.coop`.

Classes named after the seven expressions get the label order of FER-2013, others alphabetical order.

    dataset = load_dataset(Path("fer2013.tar.gz"))
    dataset.split("Training").images  # uint8 (28709, 48, 48, 1)
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgekit.contract import CropSpec, Fit
from edgekit.device.imaging import decode_image, resize
from edgekit.errors import InputError
from edgekit.files import real_path
from edgekit.models.callbacks import Notify, Progress, ignore_message
from edgekit.models.data import EXPRESSIONS, DataSet, ImageSet, missing_split, named_split, spread
from edgekit.models.data.coop import is_split_file, open_split_file
from edgekit.models.data.disk import folder_on_disk, new_array
from edgekit.models.data.fer2013 import SIDE_PX, USAGES, Square, read_splits
from edgekit.models.data.files import ARCHIVE_SUFFIXES, Files, open_files
from edgekit.models.data.layout import Layout, find_layout, require_contempt, split_order
from edgekit.preprocess import ImageU8, center_crop, fit_image
from edgekit.text import natural_key

Labels = Mapping[str, NDArray[np.int64]]
Groups = Mapping[str, NDArray[np.str_] | None]
# For each new split: the old split and the indices of its images. Other images are not decoded. `Select` computes a
# selection from the labels of each split, the classes, and the groups of each split.
Selection = Mapping[str, tuple[str, NDArray[np.int64]]]
Select = Callable[[Labels, tuple[str, ...], Groups], Selection]
# How an image becomes square: a contract's `crop.fit`, or the preprocessing of CLIP's authors.
DataFit: TypeAlias = Fit | Literal["clip"]


def load_dataset(
    path: Path,
    size_px: int = SIDE_PX,
    progress: Progress | None = None,
    *,
    contempt: str = "drop",
    notify: Notify = ignore_message,
    fit: DataFit = "square",
    select: Select | None = None,
    cache_folder: Path | None = None,
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
        cache_folder: Folder for the decoded images of image files that do not fit in memory; None: they stay in memory.

    Raises:
        InputError: The path does not exist, its format is not recognised, or the data is damaged.
    """
    report = progress or (lambda _done, _total: None)
    square = functools.partial(to_size, size_px=size_px, fit=fit)
    if is_of_files(path):
        with open_layout(path, contempt, notify) as (files, layout):
            chosen = _selected(layout, select)
            image_count = sum(map(len, chosen.values()))
            size_bytes = 3 * size_px**2 * image_count  # in colour
            # None, for an array in memory, without `cache_folder` or if the images fit in memory.
            folder = cache_folder and folder_on_disk(size_bytes, cache_folder, notify)
            images = _decoded(files, layout, path, square, report, chosen)  # decoded while `_splits` iterates over them
            splits = _splits(images, layout, chosen, folder)
            name = layout.name or dataset_name(path, layout.classes, {entry.split for entry in layout.entries})
            return DataSet(name, layout.classes, splits)
    # A .csv or HDF5 file of FER-2013, which has neither images of contempt nor groups.
    require_contempt(contempt, EXPRESSIONS)
    splits = read_splits(path, square, report)
    ordered = {name: splits[name] for name in split_order(splits)}
    name = dataset_name(path, EXPRESSIONS, ordered)
    if select:
        labels = {name: part.labels for name, part in ordered.items()}
        no_groups = dict.fromkeys(ordered)
        selection = select(labels, EXPRESSIONS, no_groups)
        ordered = {new: ordered[old].subset(indices) for new, (old, indices) in selection.items()}
    return DataSet(name, EXPRESSIONS, ordered)


def is_of_files(path: Path) -> bool:
    """Return whether a data set consists of image files (a folder, an archive, CoOp's list); else it is a .csv or HDF5.

    Raises:
        InputError: The path does not exist or has an unknown suffix.
    """
    if not path.exists():
        raise InputError(f"data '{path}' does not exist: expected a folder, a .tar.gz, a fer2013.csv or an .h5 file")
    name = path.name.lower()
    if path.is_dir() or name.endswith(ARCHIVE_SUFFIXES) or is_split_file(path):
        return True
    if name.endswith((".csv", ".h5", ".hdf5")):
        return False
    raise InputError(f"data '{path}' has an unknown format: expected a folder, .tar, .tar.gz, .csv, .h5 or .json")


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
    with open_files(path, notify) as files:
        yield files, find_layout(files, str(path), contempt, notify)


def _splits(
    images: Iterable[tuple[int, ImageU8]], layout: Layout, chosen: Mapping[str, Sequence[int]], folder: Path | None
) -> dict[str, ImageSet]:
    """Return the splits of a data set, with one channel if all images are gray.

    Args:
        images: Index in `layout.entries` and pixels of each image.
        layout: Splits and classes of the images.
        chosen: Indices of the entries of each split; an image can be in several splits.
        folder: Where the pixels are kept in a file; None: they are in memory.
    """
    # All splits are parts of one array, one after the other.
    entry_of_row = [index for indices in chosen.values() for index in indices]
    rows_of: dict[int, list[int]] = defaultdict(list)
    for row, index in enumerate(entry_of_row):
        rows_of[index].append(row)
    total = len(entry_of_row)
    pixels = np.empty((0, 1, 1, 1), np.uint8)
    for index, image in images:
        pixels = _array_for(image, pixels, total, folder)  # a new array for the first image, and the first in colour
        pixels[rows_of[index]] = image
    splits, start = {}, 0
    for split, indices in chosen.items():
        names = np.array([layout.entries[index].name for index in indices], np.str_)
        part = pixels[start : start + len(indices)]
        splits[split] = ImageSet(part, _labels(layout, indices), names=names, groups=_groups(layout, indices))
        start += len(indices)
    return splits


def _decoded(
    files: Files, layout: Layout, path: Path, square: Square, report: Progress, chosen: Mapping[str, Sequence[int]]
) -> Iterator[tuple[int, ImageU8]]:
    """Yield index and square image of each entry that is in a split; raise after the last one if any is unreadable."""
    indices = sorted({index for in_split in chosen.values() for index in in_split})  # the fastest order to read
    unreadable: list[str] = []
    for done, index in enumerate(indices, start=1):
        entry = layout.entries[index]
        content = files.read(entry.path)  # an error of the disk or the archive is raised at once
        try:
            image = single_channel_if_gray(square(decode_image(content, f"{path}/{entry.path}")))
        except InputError as error:
            unreadable.append(str(error))
            continue
        yield index, image
        if done % 256 == 0 or done == len(indices):
            report(done, len(indices))
    if unreadable:
        count = f"{len(unreadable):,} of {len(indices):,} images cannot be read"
        raise InputError(f"{count} (see `edgekit data check {path}`): {unreadable[0]}")


def _array_for(image: ImageU8, pixels: ImageU8, total: int, folder: Path | None) -> ImageU8:
    """Return `pixels`, or a new array: for the first image, and for the first one in colour after gray ones."""
    if len(pixels) and image.shape[-1] <= pixels.shape[-1]:
        return pixels
    larger = new_array(folder, (total, *image.shape))
    if len(pixels):
        larger[:] = pixels  # the gray channel becomes all three
    return larger


def _labels(layout: Layout, indices: Sequence[int]) -> NDArray[np.int64]:
    """Return the labels of these entries."""
    numbers = {name: number for number, name in enumerate(layout.classes)}
    return np.array([numbers[layout.entries[index].class_name] for index in indices], np.int64)


def _groups(layout: Layout, indices: Sequence[int]) -> NDArray[np.str_] | None:
    """Return the groups of these entries, if all are known."""
    groups = [layout.entries[index].group for index in indices]
    return np.array(groups, np.str_) if all(groups) else None


def _selected(layout: Layout, select: Select | None) -> dict[str, list[int]]:
    """Return for each split the indices of its entries, in natural order of their paths: all, or those of `select`."""
    in_order = sorted(range(len(layout.entries)), key=lambda index: natural_key(layout.entries[index].path))
    of_split: dict[str, list[int]] = defaultdict(list)
    for index in in_order:
        of_split[layout.entries[index].split].append(index)
    stored = {split: of_split[split] for split in split_order(of_split)}
    if select is None:
        return stored
    labels = {split: _labels(layout, indices) for split, indices in stored.items()}
    groups = {split: _groups(layout, indices) for split, indices in stored.items()}
    selected = {}
    for new_split, (stored_split, positions) in select(labels, layout.classes, groups).items():
        indices = stored[stored_split]
        selected[new_split] = [indices[position] for position in positions]
    return selected


def to_size(image: ImageU8, size_px: int, fit: DataFit = "square") -> ImageU8:
    """Return an image (H, W), (H, W, 1) or (H, W, 3) BGR as uint8 (size_px, size_px, 1 or 3 RGB).

    The pixels are those of `edgekit.preprocess.fit_image`, which the device computes too, except for "clip".
    """
    if fit == "clip":
        return to_clip_square(image, size_px)
    if image.ndim == 3 and image.shape[-1] == 1:
        image = image[..., 0]
    size_hw = (size_px, size_px)
    crop = CropSpec(margin=0.0, grayscale=image.ndim == 2, resize_hw=size_hw, center_crop_hw=size_hw, fit=fit)
    return fit_image(image, crop, resize)


def to_clip_square(image: ImageU8, size_px: int) -> ImageU8:
    """Return the central square of an image, resized to uint8 (size_px, size_px, 1 or 3 RGB), as CLIP's authors do.

    The shorter side is resized to `size_px` (bicubic, antialiased) with the aspect ratio kept, then the centre is
    cropped. A CLIP in torch is trained and evaluated with these pixels. A device does the reverse: it crops the central
    square, then resizes it (fit "square"). An exported CLIP is evaluated and verified with the device's pixels.
    """
    from PIL import Image

    if image.ndim == 3 and image.shape[-1] == 1:
        image = image[..., 0]
    elif image.ndim == 3:
        image = np.ascontiguousarray(image[..., ::-1])  # BGR → RGB
    height, width = image.shape[:2]
    # As in torchvision's Resize: the product comes first, so that rounding keeps a square a square.
    shorter = min(width, height)
    size_wh = (int(size_px * width / shorter), int(size_px * height / shorter))
    if size_wh != (width, height):
        image = np.asarray(Image.fromarray(image).resize(size_wh, Image.Resampling.BICUBIC), np.uint8)
    if image.ndim == 2:
        image = image[..., np.newaxis]
    return np.ascontiguousarray(center_crop(image, (size_px, size_px)))


def single_channel_if_gray(image: ImageU8) -> ImageU8:
    """Return an image with three equal channels as (H, W, 1); others are unchanged."""
    if image.ndim == 3 and image.shape[-1] == 3 and bool((image[..., :1] == image[..., 1:]).all()):
        return image[..., :1]
    return image


def load_some(
    path: Path, split: str, limit: int | None, crop: CropSpec, *, contempt: str, notify: Notify, progress: Progress
) -> tuple[DataSet, ImageSet]:
    """Read at most `limit` images of one split, evenly spaced; return the data set with these, and the split.

    The images are read as for a training with `crop`: `crop.resize_hw` is the size, `crop.fit` the way to a square.

    Raises:
        InputError: As for `load_dataset`; or the split does not exist or is empty.
    """

    def evenly_spaced(labels: Labels, _classes: tuple[str, ...], _groups: Groups) -> Selection:
        stored = named_split(labels, split)  # the data's name of the split, such as "Training" for "train"
        if stored not in labels:
            raise missing_split(f"data '{path}'", split, labels)
        return {split: (stored, spread(len(labels[stored]), limit))}

    dataset = load_dataset(
        path, crop.resize_hw[0], progress, contempt=contempt, notify=notify, fit=crop.fit, select=evenly_spaced
    )
    part = dataset.split(split)
    if len(part) == 0:
        raise InputError(f"split '{split}' of data '{path}' has no images: choose another split")
    return dataset, part


def originals(
    path: Path, split: str, part: ImageSet, limit: int | None, *, contempt: str, progress: Progress
) -> Iterator[tuple[int, str, ImageU8]]:
    """Return an iterator of the images of `part`, a result of `load_some`, as stored: index in `part`, name, pixels.

    Pixels are uint8 (H, W) or (H, W, 3) BGR. The order is the fastest one to read.

    Raises:
        InputError: The data has changed or is damaged.
    """
    if is_of_files(path):
        return stored_files(path, part, contempt, progress)
    return _from_arrays(path, split, len(part), limit, progress)


def stored_files(
    path: Path, part: ImageSet, contempt: str, progress: Progress | None = None
) -> Iterator[tuple[int, str, ImageU8]]:
    """Yield each image of `part` as `originals` does, from its file in the data set at `path`.

    Raises:
        InputError: A file does not exist any more, or is damaged.
    """
    assert part.names is not None
    positions = {name: index for index, name in enumerate(part.names.tolist())}
    with open_layout(path, contempt, ignore_message) as (files, layout):
        for entry in layout.entries:
            position = positions.pop(entry.name, None)
            if position is not None:
                yield position, entry.name, decode_image(files.read(entry.path), f"{path}/{entry.path}")
                if progress:
                    progress(len(part) - len(positions), len(part))
    if positions:
        raise InputError(f"data '{path}' changed while it was read: '{next(iter(positions))}' does not exist any more")


def _from_arrays(
    path: Path, split: str, count: int, limit: int | None, progress: Progress
) -> Iterator[tuple[int, str, ImageU8]]:
    """Yield `count` images of a split in a .csv or HDF5 file, as `originals` does."""
    splits = read_splits(path, square=None, report=progress)  # None: in the stored size
    stored = splits[named_split(splits, split)]
    rows = spread(len(stored), limit).tolist()  # the same as in `load_some`
    for position, row in enumerate(rows):
        image = stored.images[row]  # (H, W, 1) or (H, W, 3) RGB
        gray_or_bgr = image[..., 0] if image.shape[-1] == 1 else np.ascontiguousarray(image[..., ::-1])
        yield position, f"row {row} of {split}", gray_or_bgr
        progress(position + 1, count)
