"""CoOp's split files (arXiv 2109.01134), by which prompt learning is compared: `split_zhou_<name>.json`.

`{"train": [["path/to/image.jpg", 0, "class name"], ...], "val": [...], "test": [...]}`; the paths start in the file's
folder or in a folder beside the file, such as `images`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from edgekit.errors import InputError
from edgekit.models.data.files import Files, Placed, open_files
from edgekit.models.data.layout import Layout

_SPLITS = ("train", "val", "test")
_MAX_BYTES = 200 << 20


def is_split_file(path: Path) -> bool:
    """Return whether the name is one of a split file."""
    return path.suffix.lower() == ".json"


@contextmanager
def open_split_file(path: Path) -> Iterator[tuple[Files, Layout]]:
    """Open the images that a split file names, its classes in the order of their numbers.

    Raises:
        InputError: The file is no such list, contradicts itself, or an image it names is not there.
    """
    entries, classes = _entries(path)
    with open_files(path.parent) as files:
        there = set(files.images)
        root = _root(there, entries[0].path, path)
        placed = []
        for entry in entries:
            file = root / entry.path
            if file not in there:
                raise InputError(f"data '{path}' names '{entry.path}', which is not in '{path.parent / root}'")
            placed.append(Placed(file, entry.name, entry.split, entry.class_name))
        yield files, Layout(path.stem.removeprefix("split_zhou_") or path.stem, classes, tuple(placed))


def _entries(path: Path) -> tuple[list[Placed], tuple[str, ...]]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"larger than {_MAX_BYTES >> 20} MiB")
        document = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(document, dict) or not any(document.get(split) for split in _SPLITS):
            raise InputError('expected {"train": [["path", 0, "class"], ...], "val": ..., "test": ...}')
        entries = []
        names: dict[int, str] = {}
        for split in _SPLITS:
            for row in _rows(document.get(split, []), split):
                file, label, class_name = row
                if names.setdefault(label, class_name) != class_name:
                    raise InputError(f"class {label} is called '{names[label]}' and '{class_name}'")
                entries.append(Placed(PurePosixPath(file), file, split, class_name))
        if sorted(names) != list(range(len(names))):
            raise InputError(f"its class numbers are not 0 to {len(names) - 1}")
        if len(set(names.values())) < len(names):
            raise InputError("two class numbers have the same name")
        return entries, tuple(names[label] for label in range(len(names)))
    except (OSError, ValueError, RecursionError, InputError) as error:
        raise InputError(f"data '{path}' is no split file of CoOp's form: {error}") from error


def _rows(rows: object, split: str) -> Iterator[tuple[str, int, str]]:
    if not isinstance(rows, list):
        raise InputError(f"'{split}' is no list")
    for number, row in enumerate(rows):
        if not (isinstance(row, list) and len(row) == 3):
            raise InputError(f"'{split}' entry {number} is not [path, number, class]")
        file, label, class_name = row
        if not (isinstance(file, str) and type(label) is int and isinstance(class_name, str) and class_name.strip()):
            raise InputError(f"'{split}' entry {number} is not [path, number, class]")
        yield file, label, class_name


def _root(there: set[PurePosixPath], first: PurePosixPath, path: Path) -> PurePosixPath:
    """Return the folder, relative to the file's, that the paths start in."""
    for root in sorted({PurePosixPath(), *(PurePosixPath(name.parts[0]) for name in there if len(name.parts) > 1)}):
        if root / first in there:
            return root
    raise InputError(f"data '{path}' names '{first}', which is neither in its folder nor in one beside it")
