"""Names of older files: results.1.jsonl is the previous one of a rotation, door.20261130T021500Z.mp4 one without."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from edgekit.errors import StorageError

# Pause between two attempts to begin a new video file after the disk failed.
RETRY_S = 10.0
# Free space needed for that: with less, each attempt on a full disk would leave one more short file.
RESUME_BYTES = 32 << 20


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

    def make_room(self, path: Path) -> None:
        """Rename an existing file, just before a new one takes its name: with a limit by number, otherwise by time.

        Raises:
            StorageError: The folder cannot be written.
        """
        try:
            if self.active:
                shift(path, self.keep)
            else:
                set_aside(path)
        except OSError as error:
            raise StorageError(f"'{path}' cannot be renamed: {error.strerror or error}") from error


def shift(path: Path, keep: int) -> None:
    """Rename `path` to number 1, number 1 to 2, and so on; delete files beyond number `keep`.

    Only consecutive numbers from 1 belong to the rotation: `door.2024.mp4` beside `door.mp4` is not renamed. Nor is a
    pipe or a device.

    Raises:
        OSError: The folder cannot be written.
    """
    if not path.is_file():
        return
    for number in reversed(_numbers(path)):
        older = _numbered(path, number)
        if number >= keep:
            older.unlink()
        else:
            older.replace(_numbered(path, number + 1))
    path.replace(_numbered(path, 1))


def set_aside(path: Path) -> None:
    """Rename `path` to a free name with the time of its last change, such as `door.20261130T021500Z.mp4`.

    A pipe or a device is not renamed.

    Raises:
        OSError: The folder cannot be written.
    """
    if not path.is_file():
        return
    changed = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    stem = f"{path.stem}.{changed:%Y%m%dT%H%M%SZ}"
    more = (f"-{number}" for number in itertools.count(2))
    names = (path.with_name(f"{stem}{text}{path.suffix}") for text in itertools.chain([""], more))
    path.replace(next(name for name in names if not name.exists()))


def is_older_name(name: Path, path: Path) -> bool:
    """Return whether `name` is a name that `shift` gives to an older file of `path`; the files need not exist."""
    number = name.name.removeprefix(f"{path.stem}.").removesuffix(path.suffix)
    return number.isdecimal() and name == _numbered(path, int(number))


def free_bytes(path: Path) -> int:
    """Return the free space for a file or folder at `path`, which may be missing, as its folders; 0 if unknown."""
    try:
        return shutil.disk_usage(existing_place(path)).free
    except OSError:
        return 0


def existing_place(path: Path) -> Path:
    """Return `path`, or the nearest of its folders that exists.

    Raises:
        OSError: The disk fails.
    """
    whole = path.absolute()
    return next(place for place in (whole, *whole.parents) if place.exists())


def _numbers(path: Path) -> range:
    last = 0
    while _numbered(path, last + 1).exists():
        last += 1
    return range(1, last + 1)


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}.{number}{path.suffix}")


class Outage:
    """Reports the start and the end of an outage once each."""

    def __init__(self, what: str, notify: Callable[[str], None]) -> None:
        self._what = what
        self._notify = notify
        self.active = False

    def begin(self, reason: str) -> None:
        """Report that recording has stopped and why, unless it was reported before."""
        if not self.active:
            self.active = True
            self._notify(f"{reason}: {self._what} has stopped, the run continues")

    def end(self, loss: str) -> None:
        """Report that recording has resumed, if it had stopped; `loss` is appended to the message."""
        if self.active:
            self.active = False
            self._notify(f"{self._what} has resumed{loss}")
