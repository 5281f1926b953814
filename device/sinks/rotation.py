"""Older files of a recording: results.jsonl, results.1.jsonl, results.2.jsonl and so on, the higher the older."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Rotation:
    """When a new file begins (None: never for that reason) and how many older ones stay."""

    size_bytes: int | None = None
    age_s: float | None = None
    keep: int = 5

    @property
    def active(self) -> bool:
        """Whether files are ever exchanged."""
        return self.size_bytes is not None or self.age_s is not None

    def is_due(self, size_bytes: int, age_s: float) -> bool:
        """Return whether a file of this size and age has had its time."""
        too_large = self.size_bytes is not None and size_bytes >= self.size_bytes
        return too_large or (self.age_s is not None and age_s >= self.age_s)


def shift(path: Path, keep: int | None) -> None:
    """Rename `path` to number 1, 1 to 2 and so on; what comes after `keep` (None: nothing) is deleted.

    Only numbers without a gap are a rotation's own: `door.2024.mp4` beside `door.mp4` is somebody's, and stays.

    Raises:
        OSError: The folder cannot be changed.
    """
    if not path.exists():
        return
    for number in reversed(_own_numbers(path)):
        older = _numbered(path, number)
        if keep is not None and number >= keep:
            older.unlink()
        else:
            older.replace(_numbered(path, number + 1))
    path.replace(_numbered(path, 1))


def _own_numbers(path: Path) -> range:
    last = 0
    while _numbered(path, last + 1).exists():
        last += 1
    return range(1, last + 1)


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}.{number}{path.suffix}")


class Outage:
    """Tells a trouble when it begins and when it is over, and nothing in between."""

    def __init__(self, what: str, notify: Callable[[str], None]) -> None:
        self._what = what
        self._notify = notify
        self.active = False

    def begin(self, reason: str) -> None:
        """Say why recording stops, unless it has stopped already."""
        if not self.active:
            self.active = True
            self._notify(f"{reason}: {self._what} stops, the run goes on")

    def end(self, loss: str) -> None:
        """Say that recording goes on, if it had stopped; `loss` tells what was missed."""
        if self.active:
            self.active = False
            self._notify(f"{self._what} goes on{loss}")
