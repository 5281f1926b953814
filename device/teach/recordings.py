"""Recorded pictures: one folder of JPEGs per class, of bounded size, and the undo of the latest change.

    DIR/CLASS/20261130-101500-001.jpg       the second part of the name is that of the recording, the last one a number
    DIR/.removed/...                        what the latest change has removed, until the next change

`edgekit teach DIR` and `edgekit train --data DIR` read such a folder.
"""

from __future__ import annotations

import re
import shutil
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.contract import UNCERTAIN
from edgekit.errors import InputError, StorageError
from edgekit.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgekit.preprocess import FloatArray

SUFFIX = ".jpg"
_REMOVED = ".removed"
_MAX_CLASSES = 100
_MAX_CLASS_BYTES = 100


class FullError(StorageError):
    """The folder has reached its largest size."""


@dataclass(eq=False)
class Picture:
    """A recorded picture; `views` are None until they are computed (`Embedder.views`).

    Pictures of one `group` were recorded together: they are similar, and cross-validation does not separate them.
    """

    name: str
    size_bytes: int
    views: FloatArray | None = None

    @property
    def group(self) -> str:
        """The recording that the picture is from."""
        return self.name.rpartition("-")[0] or self.name


@dataclass
class _Change:
    """The latest change: what it did, the classes before it, and its moves (source, target), which `undo` reverses.

    A new file or folder counts as moved from the folder of removed things, so that `undo` moves it there.
    """

    what: str
    before: dict[str, list[Picture]]
    moves: list[tuple[Path, Path]] = field(default_factory=list)


class Recordings:
    """The class folders in `folder`; not thread-safe.

    Attributes:
        classes: The pictures of each class, in the order of their recording.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        """Read the pictures in `folder`, which need not exist yet; their total size is limited to `most_bytes`.

        Raises:
            InputError: `folder` is a file.
        """
        if folder.exists() and not folder.is_dir():
            raise InputError(f"'{folder}' is a file: name a folder for the recorded pictures")
        self.folder = folder
        self.most_bytes = most_bytes
        self._change: _Change | None = None
        self._recorded = 0  # pictures of the latest recording
        shutil.rmtree(folder / _REMOVED, ignore_errors=True)  # changes of an earlier session cannot be undone
        self.classes: dict[str, list[Picture]] = {}
        places = sorted(folder.iterdir()) if folder.is_dir() else []
        for place in places:
            if place.is_dir() and not place.name.startswith("."):
                files = sorted(place.glob(f"*{SUFFIX}"))
                # Without features, whose computation takes long: the session computes them later.
                self.classes[place.name] = [Picture(file.name, file.stat().st_size) for file in files]

    @property
    def size_bytes(self) -> int:
        """The size of all pictures."""
        return sum(picture.size_bytes for pictures in self.classes.values() for picture in pictures)

    @property
    def latest_change(self) -> str | None:
        """What `undo` would undo, such as "delete 'mug'"; None if there is nothing."""
        return None if self._change is None else self._change.what

    def path(self, label: str, name: str) -> Path:
        """Return the file of a picture.

        Raises:
            InputError: There is no such picture.
        """
        self._find(label, name)  # raises if there is no such picture
        return self.folder / label / name

    def add_class(self, name: str) -> None:
        """Add a class without pictures.

        Raises:
            InputError: The name cannot be that of a folder, or exists.
            StorageError: The folder cannot be created.
        """
        self._check_new(name)
        with self._changing(f"add '{name}'") as change:
            (self.folder / name).mkdir(parents=True, exist_ok=True)  # one may have been made by hand since the start
            self.classes[name] = []
            change.moves.append((self._removed(name), self.folder / name))  # where `undo` moves the new folder

    def rename_class(self, name: str, new: str) -> None:
        """Give a class another name; raises as `add_class`."""
        self._pictures(name)  # raises if there is no such class
        self._check_new(new, old_name=name)
        with self._changing(f"rename '{name}' to '{new}'") as change:
            self._move(change, self.folder / name, self.folder / new)
            # The class keeps its place in the order.
            self.classes = {new if label == name else label: pictures for label, pictures in self.classes.items()}

    def remove_class(self, name: str) -> None:
        """Remove a class with its pictures.

        Raises:
            InputError: It does not exist.
            StorageError: Its folder cannot be moved.
        """
        self._pictures(name)  # raises if there is no such class
        with self._changing(f"delete '{name}'") as change:
            self._move(change, self.folder / name, self._removed(name))
            del self.classes[name]

    def remove(self, label: str, name: str) -> None:
        """Remove a picture; raises as `remove_class`."""
        picture = self._find(label, name)
        with self._changing(f"delete a picture of '{label}'") as change:
            self._move(change, self.folder / label / name, self._removed(f"{label}/{name}"))
            self.classes[label].remove(picture)

    def begin(self, label: str) -> str:
        """Begin a recording, and return the name of its group: the time, in UTC.

        All pictures that are added until the next change are one change, so one `undo` removes them.

        Raises:
            InputError: The class does not exist.
        """
        self._pictures(label)  # raises if there is no such class
        with self._changing(f"record '{label}'"):
            self._recorded = 0
        began = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        taken = {picture.group for pictures in self.classes.values() for picture in pictures}
        # A board without a clock battery starts at the same time again. A letter makes the name unique.
        names = [began, *(f"{began}{letter}" for letter in "bcdefghijklmnopqrstuvwxyz")]
        free_names = [name for name in names if name not in taken]
        return free_names[0] if free_names else began  # without a free name, the new pictures join the group `began`

    def add(self, label: str, group: str, jpeg: bytes, views: FloatArray) -> None:
        """Add a picture to the recording `group`, the result of `begin`.

        `views` are the features of the picture and of its mirror image (`Embedder.views`).

        Raises:
            InputError: The class does not exist any more.
            FullError: The folder would exceed its largest size.
            StorageError: The picture cannot be written.
        """
        pictures = self._pictures(label)
        if self.size_bytes + len(jpeg) > self.most_bytes:
            raise FullError(f"the recorded pictures have reached {self.most_bytes / 1e6:g} MB: delete some of them")
        self._recorded += 1
        name = f"{group}-{self._recorded:03d}{SUFFIX}"
        write_atomic(self.folder / label / name, jpeg)
        pictures.append(Picture(name, len(jpeg), views))
        if self._change is not None:  # None after an `undo` during the recording
            # `undo` moves the picture to the removed ones.
            self._change.moves.append((self._removed(f"{label}/{name}"), self.folder / label / name))

    def undo(self) -> str:
        """Move all files of the latest change back, and return what the change was.

        Raises:
            InputError: There is nothing to undo.
            StorageError: A file cannot be moved back.
        """
        change = self._change
        if change is None:
            raise InputError("there is nothing to undo")
        self._change = None  # also if a move fails: another call would meet files that are moved already
        with _as_storage_error(self.folder):
            for source, target in reversed(change.moves):
                source.parent.mkdir(parents=True, exist_ok=True)
                target.rename(source)
        self.classes = change.before
        return change.what

    @contextmanager
    def _changing(self, what: str) -> Iterator[_Change]:
        """Yield a new change, to which the block adds its moves, and make it the one that `undo` undoes.

        Only the latest change can be undone, so the files that the change before has removed are deleted now. After an
        error in the block, nothing can be undone.
        """
        shutil.rmtree(self.folder / _REMOVED, ignore_errors=True)
        self._change = None
        change = _Change(what, before={label: list(pictures) for label, pictures in self.classes.items()})
        with _as_storage_error(self.folder):
            yield change
        self._change = change

    def _move(self, change: _Change, source: Path, target: Path) -> None:
        """Move a file or folder as a part of a change."""
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
        change.moves.append((source, target))

    def _removed(self, name: str) -> Path:
        """Return the place of a removed class or picture, until the next change."""
        return self.folder / _REMOVED / name

    def _pictures(self, label: str) -> list[Picture]:
        """Return the pictures of a class; raise InputError if it does not exist."""
        if label not in self.classes:
            raise InputError(f"class '{label}' does not exist: reload the page")
        return self.classes[label]

    def _find(self, label: str, name: str) -> Picture:
        """Return a picture; raise InputError if it does not exist."""
        for picture in self._pictures(label):
            if picture.name == name:
                return picture
        raise InputError(f"picture '{name}' of class '{label}' does not exist: reload the page")

    def _check_new(self, name: str, old_name: str | None = None) -> None:
        """Raise InputError if a class cannot get this name; `old_name` is the present name of a renamed class."""
        check_class(name)
        check_not_uncertain(name)
        others = [other for other in self.classes if other != old_name]
        for other in others:
            if other.casefold() == name.casefold():  # one folder on some file systems
                raise InputError(f"class '{other}' exists already: use another name")
        if len(others) >= _MAX_CLASSES:
            raise InputError(f"more than {_MAX_CLASSES} classes: use fewer")


def check_not_uncertain(name: str) -> None:
    """Check that a class is not called "uncertain", the label of a picture that shows none of the classes.

    Raises:
        InputError: It is.
    """
    if name == UNCERTAIN:
        raise InputError(f"'{name}' is the label of what is none of the classes: use another name")


def check_class(name: str) -> None:
    """Check that a class can be the name of a folder.

    Raises:
        InputError: The class cannot be the name of a folder.
    """
    # Options such as --classes separate names by commas.
    has_forbidden = re.search(r"^\.|[/\\,]", name) or not name.isprintable()
    is_too_long = len(name.encode(errors="replace")) > _MAX_CLASS_BYTES
    if not name or name != name.strip() or has_forbidden or is_too_long:
        raise InputError(
            f"class '{name[:40]}' cannot be the name of a folder: leave out '/', '\\', ',', a dot at its start and "
            f"spaces at its ends, and use at most {_MAX_CLASS_BYTES} bytes"
        )


@contextmanager
def _as_storage_error(folder: Path) -> Iterator[None]:
    """Turn an OSError of the block into a StorageError."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot write to '{folder}': {error.strerror or error}") from error
