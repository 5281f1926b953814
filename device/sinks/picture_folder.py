"""A folder of pictures whose number and size are bounded."""

from __future__ import annotations

import os
import re
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

from edgekit.device.sinks.writer import LostError
from edgekit.errors import InputError
from edgekit.files import remove_folder_leftovers, write_atomic

FOLDER_FULL = "folder full"
# The smallest step of modification times: FAT stores every second one.
_STEP_NS = 2_000_000_000

# Of --collect: the folder of the crops, and the file with one line for each.
CROPS_FOLDER = "crops"
CROPS_FILE = "crops.jsonl"


class PictureFolder:
    """Writes pictures; beyond the limits, the oldest are deleted, or no more are written.

    The modification times of pictures that may be deleted are the order in which they were written: each is later than
    the previous one, also if the board's clock goes back.

    Attributes:
        folder: The folder, which is created with the first picture.
    """

    def __init__(
        self,
        folder: Path,
        suffix: str,
        *,
        most_files: int,
        most_bytes: int,
        deletable: re.Pattern[str] | None = None,
        beside: str = "",
    ) -> None:
        """Prepare to write pictures whose names end in `suffix`.

        Args:
            folder: The folder.
            suffix: End of the names.
            most_files: Largest number of pictures.
            most_bytes: Their largest size.
            deletable: Matches the names of the pictures that may be deleted; other files count neither. None: all
                pictures count, and none is deleted.
            beside: Suffix of a second file of each picture, which is counted and deleted with it.

        Raises:
            InputError: `folder` is a file.
        """
        if folder.exists() and not folder.is_dir():
            raise InputError(f"'{folder}' is a file: name a folder for the pictures")
        self.folder = folder
        self._suffix = suffix
        self._most_files = most_files
        self._most_bytes = most_bytes
        self._deletable = deletable
        self._beside = beside
        # Names and sizes, the oldest first, and their sum; None: not counted yet.
        self._stored: deque[tuple[str, int]] | None = None
        self._bytes = 0
        self._latest_ns = 0

    def store(self, name: str, data: bytes) -> None:
        """Write a picture.

        Raises:
            StorageError: The disk fails.
            LostError: The folder is full.
        """
        if self._stored is None:
            remove_folder_leftovers(self.folder, self._suffix)  # those of a power cut
        # A folder that deletes no pictures may be full now. Counted again, because some may have been labelled or
        # deleted by others meanwhile.
        may_be_full = self._deletable is None and self._exceeds(1, len(data))
        if self._stored is None or may_be_full:
            self._stored = self._found()
            self._bytes = sum(size for _, size in self._stored)
        if self._deletable is None and self._exceeds(1, len(data)):
            raise LostError(FOLDER_FULL, f"'{self.folder}' is full ({len(self._stored)} pictures)")
        write_atomic(self.folder / name, data)
        self._add(name, len(data))

    def make_room(self, name: str, size_bytes: int) -> bool:
        """Delete the oldest pictures until `name`, which the caller writes, can have `size_bytes`; return whether so.

        The picture is not among the others before `count`.
        """
        self._count_others(name)
        with suppress(OSError):
            while self._stored and self._exceeds(1, size_bytes):
                self._delete_oldest()
        return not self._exceeds(1, size_bytes)

    def count(self, name: str) -> None:
        """Count a picture that the caller has written."""
        self._count_others(name)
        with suppress(OSError):
            self._add(name, self._size_bytes(self.folder / name))

    def _count_others(self, name: str) -> None:
        """Count the pictures of earlier runs, but not `name`."""
        if self._stored is None:
            self._stored = deque(entry for entry in self._found() if entry[0] != name)
            self._bytes = sum(size for _, size in self._stored)

    def _add(self, name: str, size_bytes: int) -> None:
        """Count a picture, set its modification time, and delete the oldest ones beyond the limits."""
        assert self._stored is not None
        self._stored.append((name, size_bytes))
        self._bytes += size_bytes
        if self._deletable is not None:
            self._latest_ns = max(time.time_ns(), self._latest_ns + _STEP_NS)
            with suppress(OSError):
                os.utime(self.folder / name, ns=(self._latest_ns, self._latest_ns))
        # Last, so that a disk to which nothing can be written keeps the older pictures.
        with suppress(OSError):
            while self._deletable is not None and len(self._stored) > 1 and self._exceeds():
                self._delete_oldest()

    def _delete_oldest(self) -> None:
        assert self._stored
        name, size_bytes = self._stored[0]
        for path in self._files(name):
            path.unlink(missing_ok=True)
        self._stored.popleft()
        self._bytes -= size_bytes

    def remove(self, name: str) -> None:
        """Remove the picture again that was stored last."""
        (self.folder / name).unlink(missing_ok=True)
        if self._stored:
            self._bytes -= self._stored.pop()[1]

    def _exceeds(self, more_files: int = 0, more_bytes: int = 0) -> bool:
        """Return whether the counted pictures and `more` of them are beyond the limits."""
        files = len(self._stored or ()) + more_files
        return files > self._most_files or self._bytes + more_bytes > self._most_bytes

    def _files(self, name: str) -> list[Path]:
        """Return the file of a picture, and the one beside it."""
        path = self.folder / name
        return [path, *([path.with_suffix(self._beside)] if self._beside else [])]

    def _size_bytes(self, path: Path) -> int:
        return sum(file.stat().st_size for file in self._files(path.name) if file.exists())

    def _found(self) -> deque[tuple[str, int]]:
        """Return names and sizes of the pictures in the folder, the oldest first, and set `_latest_ns`."""
        found = []
        with suppress(OSError):
            for path in self.folder.glob(f"*{self._suffix}"):
                if self._deletable is None or self._deletable.fullmatch(path.name):
                    with suppress(OSError):  # deleted in this moment, or damaged
                        found.append((path.stat().st_mtime_ns, path.name, self._size_bytes(path)))
        self._latest_ns = max((time_ns for time_ns, _, _ in found), default=0)
        return deque((name, size_bytes) for _, name, size_bytes in sorted(found))
