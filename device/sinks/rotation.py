"""File rotation: results.jsonl is the latest file, results.1.jsonl the previous one, and so on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
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

    def make_room(self, video: Path, *, has_files: bool) -> None:
        """Number the older files of a video, just before a new one takes the name.

        Args:
            video: The latest file.
            has_files: Whether this run has recorded a file. Without a limit, only such a file is renamed: the camera or
                the disk failed in between, and what was recorded before is kept.

        Raises:
            StorageError: The folder cannot be written.
        """
        try:
            if self.active:
                shift(video, self.keep)
            elif has_files:
                shift(video, None)
        except OSError as error:
            raise StorageError(f"video '{video}' cannot be named: {error.strerror or error}") from error


def shift(path: Path, keep: int | None) -> None:
    """Rename `path` to number 1, number 1 to 2, and so on; delete files beyond number `keep` (None: keep all).

    Only consecutive numbers from 1 belong to the rotation: `door.2024.mp4` beside `door.mp4` is not renamed. Nor is a
    pipe or a device.

    Raises:
        OSError: The folder cannot be written.
    """
    if not path.is_file():
        return
    for number in reversed(_numbers(path)):
        older = _numbered(path, number)
        if keep is not None and number >= keep:
            older.unlink()
        else:
            older.replace(_numbered(path, number + 1))
    path.replace(_numbered(path, 1))


def is_older_name(name: Path, path: Path) -> bool:
    """Return whether `name` is a name that `shift` gives to an older file of `path`; the files need not exist."""
    number = name.name.removeprefix(f"{path.stem}.").removesuffix(path.suffix)
    return number.isdecimal() and name == _numbered(path, int(number))


def free_bytes(path: Path) -> int:
    """Return the free space for a file or folder at `path`, which may be missing, as its folders; 0 if unknown."""
    whole = path.absolute()
    try:
        return shutil.disk_usage(next(place for place in (whole, *whole.parents) if place.exists())).free
    except OSError:
        return 0


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
