"""The pictures of a split as they are stored, for a second way from file to pixels to be held against the first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.device.imaging import decode_image
from edgekit.errors import InputError
from edgekit.models.data import DataSet, ImageSet
from edgekit.models.data.coop import is_split_file
from edgekit.models.data.fer2013 import read_csv, read_hdf5
from edgekit.models.data.files import Say
from edgekit.models.data.readers import Selection, is_of_files, load_dataset, open_layout
from edgekit.preprocess import ImageU8

Progress = Callable[[int, int | None], None]


def load_some(
    path: Path, split: str, limit: int | None, size_px: int, *, contempt: str, say: Say, progress: Progress
) -> tuple[DataSet, ImageSet]:
    """Read one split as training does, at most `limit` of its images, taken evenly over its natural order.

    Raises:
        InputError: As `load_dataset`, or the data set has no such split, or an empty one.
    """

    def choose(labels: Mapping[str, NDArray[np.int64]], classes: tuple[str, ...]) -> Selection:
        del classes
        if split not in labels:
            raise InputError(f"data '{path}' has no split '{split}': it has {', '.join(labels)}")
        total = len(labels[split])
        return {split: (split, spread(total, limit))}

    dataset = load_dataset(path, size_px, progress, contempt=contempt, say=say, select=choose)
    part = dataset.split(split)
    if len(part) == 0:
        raise InputError(f"split '{split}' of data '{path}' holds no image: name another with --split")
    return dataset, part


def spread(total: int, limit: int | None) -> NDArray[np.int64]:
    """Return at most `limit` indices below `total`, evenly spread."""
    if limit is None or limit >= total:
        return np.arange(total)
    return np.linspace(0, total - 1, limit).round().astype(np.int64)


def originals(
    path: Path, split: str, part: ImageSet, limit: int | None, *, contempt: str, progress: Progress
) -> Iterator[tuple[int, str, ImageU8]]:
    """Yield each image of `part`, which `load_some` gave, as it is stored: its index in `part`, its name, its pixels.

    Pixels are uint8 (H, W) or (H, W, 3) B, G, R. Images come in the order they are read best.

    Raises:
        InputError: The data changed meanwhile or are damaged.
    """
    if not (is_split_file(path) or is_of_files(path)):
        yield from _of_numbers(path, split, len(part), limit, progress)
        return
    assert part.names is not None
    positions = {name: index for index, name in enumerate(part.names.tolist())}
    with open_layout(path, contempt, lambda _: None) as (files, layout):
        done = 0
        for entry in layout.entries:
            position = positions.get(entry.name) if entry.split == split else None
            if position is None:
                continue
            yield position, entry.name, decode_image(files.read(entry.path), f"{path}/{entry.path}")
            done += 1
            progress(done, len(part))
    if done != len(part):
        raise InputError(f"data '{path}' changed while it was read: {done} of {len(part)} images are still there")


def _of_numbers(
    path: Path, split: str, count: int, limit: int | None, progress: Progress
) -> Iterator[tuple[int, str, ImageU8]]:
    if path.name.lower().endswith(".csv"):
        stored = read_csv(path, lambda image: image, progress)[split]
    else:
        stored = read_hdf5(path, None)[split]
    for position, row in enumerate(spread(len(stored), limit).tolist()):
        image = stored.images[row]
        bgr = image[..., 0] if image.shape[-1] == 1 else np.ascontiguousarray(image[..., ::-1])
        yield position, f"row {row} of {split}", bgr
        progress(position + 1, count)
