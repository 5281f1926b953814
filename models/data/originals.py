"""Images of a split as stored, to compare the device's preprocessing with that of training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.contract import CropSpec
from edgekit.device.imaging import decode_image
from edgekit.errors import InputError
from edgekit.models.callbacks import Notify, Progress, ignore_message
from edgekit.models.data import DataSet, ImageSet, missing_split, named_split
from edgekit.models.data.coop import is_split_file
from edgekit.models.data.fer2013 import read_splits
from edgekit.models.data.readers import Groups, Labels, Selection, is_of_files, load_dataset, open_layout
from edgekit.preprocess import ImageU8


def load_some(
    path: Path, split: str, limit: int | None, crop: CropSpec, *, contempt: str, notify: Notify, progress: Progress
) -> tuple[DataSet, ImageSet]:
    """Read at most `limit` images of one split as training does, evenly spaced over the split's natural order.

    The images have the size `crop.resize_hw` and were made square according to `crop.fit`.

    Raises:
        InputError: As for `load_dataset`; or the split does not exist or is empty.
    """

    def choose(labels: Labels, classes: tuple[str, ...], groups: Groups) -> Selection:
        del classes, groups
        stored = named_split(labels, split)
        if stored not in labels:
            raise missing_split(f"data '{path}'", split, labels)
        return {split: (stored, spread(len(labels[stored]), limit))}

    dataset = load_dataset(
        path, crop.resize_hw[0], progress, contempt=contempt, notify=notify, fit=crop.fit, select=choose
    )
    part = dataset.split(split)
    if len(part) == 0:
        raise InputError(f"split '{split}' of data '{path}' has no images: choose another split")
    return dataset, part


def spread(total: int, limit: int | None) -> NDArray[np.int64]:
    """Return at most `limit` indices below `total`, evenly spaced."""
    if limit is None or limit >= total:
        return np.arange(total)
    return np.linspace(0, total - 1, limit).round().astype(np.int64)


def originals(
    path: Path, split: str, part: ImageSet, limit: int | None, *, contempt: str, progress: Progress
) -> Iterator[tuple[int, str, ImageU8]]:
    """Return an iterator of the images of `part`, a result of `load_some`, as stored: index in `part`, name, pixels.

    Pixels are uint8 (H, W) or (H, W, 3) BGR. The order is the fastest one to read.

    Raises:
        InputError: The data has changed or is damaged.
    """
    if is_split_file(path) or is_of_files(path):
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
    splits = read_splits(path, None, progress)
    stored = splits[named_split(splits, split)]
    for position, row in enumerate(spread(len(stored), limit).tolist()):
        image = stored.images[row]
        bgr = image[..., 0] if image.shape[-1] == 1 else np.ascontiguousarray(image[..., ::-1])
        yield position, f"row {row} of {split}", bgr
        progress(position + 1, count)
