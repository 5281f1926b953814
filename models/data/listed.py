"""Data sets whose classes are in text files, in the folders that CoOp's instructions describe (arXiv 2109.01134):

- ImageNet, ImageNetV2, -Sketch, -A and -R: `classnames.txt` has a line `n01440764 tench` per class. The images are in
  folders called after the first word, or (ImageNetV2) after the number of the line, from 0. Those below `train` are the
  split "train", all others, such as ImageNet's `val`, the split "test".
- FGVC-Aircraft: `variants.txt` has a class per line, `images_variant_{train,val,test}.txt` lines `0123456 707-320`, and
  the images are `images/0123456.jpg`.

Classes have the order of the list. If two folders have the same class name, `_` is appended to the second name, which
gives both the same words (see `edgekit.models.clip.descriptions.as_words`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from edgekit.device.imaging import IMAGE_SUFFIXES
from edgekit.errors import InputError
from edgekit.models.callbacks import Notify
from edgekit.models.data.files import Files, ImageEntry, folder_files, report_left_out
from edgekit.models.data.layout import Layout

CLASS_LIST, VARIANT_LIST = "classnames.txt", "variants.txt"
# CoOp's names of the data sets, by CoOp's names of their folders.
_NAMES = {
    "imagenet": "ImageNet",
    "imagenetv2": "ImageNetV2",
    "imagenet-sketch": "ImageNetSketch",
    "imagenet-adversarial": "ImageNetA",
    "imagenet-rendition": "ImageNetR",
    "fgvc_aircraft": "FGVCAircraft",
}
_CLASS_LINE = re.compile(r"(n\d{8})\s+(\S.*)")
# Levels of folders between the list and the images' folders: imagenet/images/train/n01440764.
_LEVELS = 3


def is_listed(path: Path) -> bool:
    """Return whether a folder has one of the lists; other files of these names are not taken for them."""
    if (path / CLASS_LIST).is_file():
        return bool(lines := _lines(path / CLASS_LIST)) and _CLASS_LINE.fullmatch(lines[0]) is not None
    return (path / VARIANT_LIST).is_file() and (path / "images_variant_train.txt").is_file()


def read_listed(path: Path, notify: Notify) -> tuple[Files, Layout]:
    """Return the images of a folder with a list of classes; `notify` gets lines about images that are not read.

    Raises:
        InputError: A list is damaged or names an image that does not exist, or there is no image.
    """
    names, entries = _imagenet(path, notify) if (path / CLASS_LIST).is_file() else _aircraft(path)
    if not entries:
        raise InputError(f"data '{path}' has no image in folders called after the classes of {CLASS_LIST}")
    found = {entry.class_name for entry in entries}
    classes = tuple(name for name in names if name in found)
    layout = Layout(_NAMES.get(path.absolute().name), classes, tuple(entries))
    return folder_files(path, [entry.path for entry in entries]), layout


def _imagenet(path: Path, notify: Notify) -> tuple[list[str], list[ImageEntry]]:
    class_of = _class_names(path / CLASS_LIST)
    names = list(class_of.values())
    folders = class_of | {str(number): name for number, name in enumerate(names)}
    found: list[PurePosixPath] = []
    entries: list[ImageEntry] = []
    above: dict[str, PurePosixPath] = {}
    for folder in _class_folders(path, folders, _LEVELS):
        split = "train" if folder.parent.name == "train" else "test"
        if above.setdefault(split, folder.parent) != folder.parent:
            raise InputError(
                f"data '{path}' has images of split '{split}' in '{above[split]}' and in '{folder.parent}': keep one"
            )
        found += (files := _files(path, folder))
        images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
        entries += [ImageEntry(file, str(file), split, folders[folder.name]) for file in images]
    report_left_out(found, notify)
    unlisted = _unlisted_folders(path, {file.parent for file in found}, folders)
    if unlisted:
        notify(f"{len(unlisted)} folders are not in {CLASS_LIST} and are ignored, such as '{unlisted[0]}'")
    return names, entries


def _class_names(path: Path) -> dict[str, str]:
    """Return the distinct class name of each folder."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for number, line in enumerate(_lines(path), start=1):
        match = _CLASS_LINE.fullmatch(line)
        if not match:
            raise InputError(f"'{path}', line {number}: expected a folder and a class, such as 'n01440764 tench'")
        name = match[2]
        while name in taken:
            name += "_"
        taken.add(name)
        names[match[1]] = name
    return names


def _class_folders(path: Path, known: Collection[str], levels: int) -> Iterator[PurePosixPath]:
    """Yield the folders called after classes, relative to `path`; what is in them is not listed."""
    with os.scandir(path) as entries:
        folders = sorted(entry.name for entry in entries if entry.is_dir())
    for name in folders:
        if name in known:
            yield PurePosixPath(name)
        elif levels > 1 and not name.startswith("."):
            yield from (PurePosixPath(name) / folder for folder in _class_folders(path / name, known, levels - 1))


def _unlisted_folders(path: Path, listed: Collection[PurePosixPath], known: Collection[str]) -> list[PurePosixPath]:
    """Return the folders beside those of listed classes that are not called after a class, relative to `path`."""
    above = {parent for folder in listed for parent in folder.parents}
    folders = []
    for parent in {folder.parent for folder in listed}:
        with os.scandir(path / parent) as entries:
            names = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
        folders += [parent / name for name in names if name not in known and parent / name not in above]
    return sorted(folders)


def _files(path: Path, folder: PurePosixPath) -> list[PurePosixPath]:
    """Return the files of a folder, relative to `path`."""
    with os.scandir(path / folder) as entries:
        return [folder / name for name in sorted(entry.name for entry in entries) if not name.startswith(".")]


def _aircraft(path: Path) -> tuple[list[str], list[ImageEntry]]:
    names = _lines(path / VARIANT_LIST)
    existing = set(_files(path, PurePosixPath("images"))) if (path / "images").is_dir() else set()
    entries = []
    for split in ("train", "val", "test"):
        table = path / f"images_variant_{split}.txt"
        for number, line in enumerate(_lines(table), start=1):
            image, _, name = line.partition(" ")
            file = PurePosixPath("images", f"{image}.jpg")
            if name not in names:
                raise InputError(f"'{table}', line {number}: class '{name}' is not in {VARIANT_LIST}")
            if file not in existing:
                raise InputError(f"'{table}', line {number}: there is no image '{path / file}'")
            entries.append(ImageEntry(file, str(file), split, name))
    return names, entries


def _lines(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"list '{path}' cannot be read: {error}") from error
    return [line for line in lines if line]
