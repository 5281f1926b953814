"""Files of one output: the current one, and older ones that a rotation has numbered or a restart has renamed."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from edgekit.device.sinks.writer import LostError, Target
from edgekit.errors import InputError
from edgekit.files import is_at
from edgekit.options import parse_bytes, parse_seconds

T = TypeVar("T")
_T_contra = TypeVar("_T_contra", contravariant=True)

# Smaller limits would give too many files to read.
_LEAST_BYTES = 10_000
_LEAST_S = 1.0


@dataclass(frozen=True)
class Rotation:
    """Size and age limits of a file (None: no limit), and the number of older files to keep."""

    size_bytes: int | None = None
    age_s: float | None = None
    keep: int = 5

    @property
    def active(self) -> bool:
        """Whether there is a limit."""
        return self.size_bytes is not None or self.age_s is not None

    def is_due(self, size_bytes: int, age_s: float) -> bool:
        """Return whether a file of this size and age has reached a limit."""
        too_large = self.size_bytes is not None and size_bytes >= self.size_bytes
        return too_large or (self.age_s is not None and age_s >= self.age_s)


def parse_limits(text: str) -> Rotation:
    """Return the limits in `10MB`, `1d` or `10MB,1d,keep=20`.

    Raises:
        ValueError: A part is no size, time or number of files, no limit is among them, or a limit is too small.
    """
    size_bytes: int | None = None
    age_s: float | None = None
    keep = Rotation.keep
    for part in map(str.strip, text.split(",")):
        if part.startswith("keep="):
            if not re.fullmatch(r"keep=[1-9]\d{0,3}", part):
                raise ValueError(f"'{part}' is not a number of files: write keep=1 to keep=9999")
            keep = int(part.removeprefix("keep="))
            continue
        try:
            size_bytes = parse_bytes(part)
            is_small = size_bytes < _LEAST_BYTES
        except ValueError:  # no size: it must be a time
            age_s = parse_seconds(part)
            is_small = age_s < _LEAST_S
        if is_small:
            raise ValueError(f"'{part}' is too small: at least {_LEAST_BYTES // 1000}KB or {_LEAST_S:g}s")
    if size_bytes is None and age_s is None:
        raise ValueError("it needs a size or a time, such as 10MB or 1d")
    return Rotation(size_bytes, age_s, keep)


class OutputFile(Target[_T_contra], Protocol[_T_contra]):
    """An open file of a `FileSeries`."""

    @property
    def size_bytes(self) -> int:
        """Current size."""
        ...

    @property
    def age_s(self) -> float:
        """Age when it was opened: that of a file which an earlier run has begun, otherwise 0."""
        ...

    def fileno(self) -> int:
        """Return the file descriptor."""
        ...


@dataclass(eq=False)
class FileSeries(Generic[T]):
    """Target of a `Writer`: the file at `path`, which a new one replaces when the rotation requires it.

    Attributes:
        path: The latest file.
        rotation: When to begin a new file, and how many older files to keep.
        open_file: Opens a file for a first item; raises StorageError.
        say: Called with one line if the file exists: that it is continued, or its new name.
        continues: Whether an existing file is continued; otherwise it is renamed.
        begins: Whether a file may begin with an item.
    """

    path: Path
    rotation: Rotation
    open_file: Callable[[Path, T], OutputFile[T]]
    say: Callable[[str], None]
    continues: Callable[[Path], bool] = lambda _: False
    begins: Callable[[T], bool] = lambda _: True
    _file: OutputFile[T] | None = None
    _begun_s: float = 0.0
    _was_open: bool = False

    def write(self, items: Sequence[T]) -> int:
        """Append items to the file, or to a new one if the rotation requires it or the file is gone.

        Return the number of items that are safe now, those of a file that was completed included.
        """
        completed = 0
        if self._file is not None and not is_at(self.path, self._file.fileno()):  # deleted or moved
            completed = self.close()
        # A batch is not split: its first item decides whether all of it goes into a new file.
        if self._file is not None and self._must_rotate(self._file, items[0]):
            completed = self.close()
            _shift(self.path, self.rotation.keep)
        if self._file is None:
            self._open(items[0])
        assert self._file is not None
        return completed + self._file.write(items)

    def close(self) -> int:
        """Complete the file; return the number of items that this makes safe."""
        ended, self._file = self._file, None
        return 0 if ended is None else ended.close()

    def _must_rotate(self, file: OutputFile[T], item: T) -> bool:
        """Return whether the file has reached a limit, and `item` can begin the next one."""
        is_due = self.rotation.is_due(file.size_bytes, time.monotonic() - self._begun_s)
        return is_due and self.begins(item) and self.path.is_file()

    def _open(self, item: T) -> None:
        """Open the file at `path` for a first item; raise LostError if no file may begin with it."""
        if not self.begins(item):
            raise LostError("no key frame")
        # The file of an earlier run gets a time in its name, not a number: otherwise some restarts would soon make the
        # rotation delete all older files.
        if self.path.is_file() and not self.continues(self.path):
            self.say(f"'{self.path}' existed and is now called '{_set_aside(self.path)}'")
        elif self.path.is_file() and not self._was_open:  # after an outage of the disk, it is this run's own file
            self.say(f"'{self.path}' exists and is continued")
        self._file = self.open_file(self.path, item)
        self._was_open = True
        # A file that is continued has an age: a rotation by time counts on over restarts.
        self._begun_s = time.monotonic() - self._file.age_s


def is_older_name(name: Path, path: Path) -> bool:
    """Return whether `name` is a name that a rotation gives to an older file of `path`; the files need not exist."""
    number = name.name.removeprefix(f"{path.stem}.").removesuffix(path.suffix)
    return number.isdecimal() and name == _numbered(path, int(number))


def require_suffix(path: Path, suffix: str, what: str) -> None:
    """Check the name of an output file.

    Raises:
        InputError: It is a folder, or ends in another suffix.
    """
    if path.suffix.lower() != suffix or path.is_dir():
        raise InputError(f"{what} '{path}': name a file that ends in {suffix}")


def _shift(path: Path, keep: int) -> None:
    """Rename `path` to number 1, number 1 to 2, and so on; delete files beyond number `keep`.

    Only consecutive numbers from 1 belong to the rotation: `door.2024.mp4` beside `door.mp4` is not renamed.
    """
    last = 0  # number of the oldest file
    while _numbered(path, last + 1).exists():
        last += 1
    for number in range(last, 0, -1):
        older = _numbered(path, number)
        if number >= keep:  # it would get a number beyond `keep`
            older.unlink()
        else:
            older.replace(_numbered(path, number + 1))
    path.replace(_numbered(path, 1))


def _set_aside(path: Path) -> Path:
    """Rename `path` to a free name with the time of its last change, such as `door.20261130T021500Z.mp4`; return it."""
    stem = f"{path.stem}.{datetime.fromtimestamp(path.stat().st_mtime, UTC):%Y%m%dT%H%M%SZ}"
    names = (f"{stem}{'' if number == 1 else f'-{number}'}{path.suffix}" for number in itertools.count(1))
    return path.replace(next(place for name in names if not (place := path.with_name(name)).exists()))


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}.{number}{path.suffix}")
