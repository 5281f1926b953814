"""CoOp's split files of data sets that CoOp's instructions leave in their own form (arXiv 2109.01134):

- ImageNet, ImageNetV2, -Sketch, -A and -R: `classnames.txt` has a line `n01440764 tench` per class. The images are in
  folders called after the first word, or (ImageNetV2) after the number of the line, from 0. Those below `train` are the
  split "train", all others, such as ImageNet's `val`, the split "test".
- FGVC-Aircraft: `variants.txt` has a class per line, `images_variant_{train,val,test}.txt` lines `0123456 707-320`, and
  the images are `images/0123456.jpg`.

Classes have the order of the list. A second class of the same name gets `_` appended, which `edgekit` reads as a space.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from edgekit.device.imaging import IMAGE_SUFFIXES
from edgekit.files import write_atomic

# Split, path and class.
Row = tuple[str, str, str]


def write_split_file(path: Path) -> None:
    """Write `split_zhou_NAME.json` into a folder that has one of the lists; one that exists is kept."""
    folder = path.parent
    if path.exists() or not folder.is_dir():
        return
    is_imagenet = (folder / "classnames.txt").is_file()
    names, rows = _imagenet(folder) if is_imagenet else _aircraft(folder)
    known = {name for _, _, name in rows}
    number = {name: index for index, name in enumerate(name for name in names if name in known)}
    splits: dict[str, list[tuple[str, int, str]]] = defaultdict(list)
    for split, file, name in rows:
        splits[split].append((file, number[name], name))
    write_atomic(path, json.dumps(splits))


def _imagenet(folder: Path) -> tuple[list[str], list[Row]]:
    names: list[str] = []
    class_of = {}
    for line in _lines(folder / "classnames.txt"):
        key, _, name = line.partition(" ")
        while name in names:
            name += "_"
        class_of[key] = class_of[str(len(names))] = name
        names.append(name)
    return names, list(_images(folder, class_of))


def _images(folder: Path, class_of: dict[str, str]) -> Iterator[Row]:
    for parent, folders, files in os.walk(folder):
        folders.sort()
        path = Path(parent)
        if (name := class_of.get(path.name)) and path != folder:
            split = "train" if path.parent.name == "train" else "test"
            chosen = (path / file for file in sorted(files) if Path(file).suffix.lower() in IMAGE_SUFFIXES)
            yield from ((split, each.relative_to(folder).as_posix(), name) for each in chosen)


def _aircraft(folder: Path) -> tuple[list[str], list[Row]]:
    rows = []
    for split in ("train", "val", "test"):
        for line in _lines(folder / f"images_variant_{split}.txt"):
            image, _, name = line.partition(" ")
            rows.append((split, f"images/{image}.jpg", name))
    return _lines(folder / "variants.txt"), rows


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
