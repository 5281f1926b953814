"""CoOp's split files `split_zhou_<name>.json` (arXiv 2109.01134), the benchmark splits of prompt learning.

The content is `{"train": [["path/to/image.jpg", 0, "class name"], ...], "val": [...], "test": [...]}`. Paths are
relative to the file's folder or to a folder in it, such as `images`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath

from edgekit.errors import InputError
from edgekit.models.data.files import Files, ImageEntry, open_files
from edgekit.models.data.layout import Layout

_SPLITS = ("train", "val", "test")


def is_split_file(path: Path) -> bool:
    """Return whether the file name is that of a split file."""
    return path.suffix.lower() == ".json"


@contextmanager
def open_split_file(path: Path) -> Iterator[tuple[Files, Layout]]:
    """Open the images of a split file, with classes in the order of their numbers.

    Raises:
        InputError: The file has another form or is inconsistent, or one of its images does not exist.
    """
    entries, classes = _entries(path)
    with open_files(path.parent) as files:
        existing = set(files.images)
        root = _root(existing, entries[0].path, path)  # the folder to which all listed paths are relative
        resolved = []
        for entry in entries:
            file = root / entry.path
            if file not in existing:
                raise InputError(f"data '{path}' lists '{entry.path}', which is not in '{path.parent / root}'")
            resolved.append(replace(entry, path=file))
        yield files, Layout(path.stem.removeprefix("split_zhou_") or path.stem, classes, tuple(resolved))


def _entries(path: Path) -> tuple[list[ImageEntry], tuple[str, ...]]:
    """Return the images that a split file lists, and the classes in the order of their numbers."""
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
        if not isinstance(document, dict) or not any(document.get(split) for split in _SPLITS):
            raise InputError('expected {"train": [["path", 0, "class"], ...], "val": ..., "test": ...}')
        entries = []
        names: dict[int, str] = {}
        for split in _SPLITS:
            for file, label, class_name in _rows(document.get(split, []), split):
                if names.setdefault(label, class_name) != class_name:
                    raise InputError(f"class {label} has two names, '{names[label]}' and '{class_name}'")
                entries.append(ImageEntry(PurePosixPath(file), file, split, class_name))
        if sorted(names) != list(range(len(names))):
            raise InputError(f"its class numbers are not 0 to {len(names) - 1}")
        if len(set(names.values())) < len(names):
            raise InputError("two class numbers have the same name")
        return entries, tuple(names[label] for label in range(len(names)))
    except (OSError, ValueError, RecursionError, InputError) as error:
        raise InputError(f"data '{path}' is not a split file in CoOp's format: {error}") from error


def _rows(rows: object, split: str) -> Iterator[tuple[str, int, str]]:
    """Yield path, class number and class name of each entry of a split, checked."""
    if not isinstance(rows, list):
        raise InputError(f"'{split}' is not a list")
    for number, row in enumerate(rows):
        if not (isinstance(row, list) and len(row) == 3):
            raise InputError(f"entry {number} of '{split}' must be [path, class number, class name]")
        file, label, class_name = row
        is_number = isinstance(label, int) and not isinstance(label, bool)  # JSON's true is an int in Python
        if not (isinstance(file, str) and is_number and isinstance(class_name, str) and class_name.strip()):
            raise InputError(f"entry {number} of '{split}' must be [path, class number, class name]")
        yield file, label, class_name


def _root(existing: set[PurePosixPath], first: PurePosixPath, path: Path) -> PurePosixPath:
    """Return the folder to which the listed paths are relative, as a path below the split file's folder.

    It is the one that contains the first listed file, `first`; `existing` are the images below the split file's folder.
    """
    # The first listed file decides; the caller looks for the others.
    folders = {PurePosixPath(name.parts[0]) for name in existing if len(name.parts) > 1}
    for root in sorted({PurePosixPath(), *folders}):  # the split file's own folder first
        if root / first in existing:
            return root
    raise InputError(f"data '{path}' lists '{first}', which is neither in its folder nor in a folder beside it")
