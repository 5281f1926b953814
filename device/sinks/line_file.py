"""Text files of whole lines: a full disk or a power cut leaves no partial line behind."""

from __future__ import annotations

import os
import re
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from edgekit.device.accounting import Account, loss_reason
from edgekit.device.imaging import IMAGE_SUFFIXES
from edgekit.device.sinks.rotation import Rotation, shift
from edgekit.errors import InputError, StorageError, warn
from edgekit.files import is_at, write_all
from edgekit.model_store import MODEL_SUFFIXES

STDOUT = "-"
# Longer than any line; a power cut leaves at most one partial line at the end of a file.
_TAIL_BYTES = 1 << 20
# In a record of JSON.
_WALL_S = re.compile(r'"wall_s": ?(\d+(?:\.\d+)?)')


class LineFile:
    """A text file to which lines are appended in place, so that other programs can follow it; `-` is stdout.

    An existing file is continued; one with another header is renamed. Pipes and devices are not rotated. A line that
    does not fit on the disk is removed again, and `append` may be retried. If the file or its folder is deleted or
    moved, the next line begins a new file.

    Attributes:
        header: The first line of every file, or "".
        account: Counts the records of `write`.
    """

    def __init__(
        self,
        target: str,
        rotation: Rotation | None = None,
        *,
        name: str = "lines",
        notify: Callable[[str], None] = warn,
    ) -> None:
        """Prepare to write `target`; `name` is that of the account, `notify` receives one line for each lost file.

        Raises:
            InputError: `target` is a folder, or named like an image or a model.
        """
        if target != STDOUT and Path(target).is_dir():
            raise InputError(f"'{target}' is a folder: name a file")
        if Path(target).suffix.lower() in (*IMAGE_SUFFIXES, *MODEL_SUFFIXES):
            # Usually an input file given by mistake.
            raise InputError(f"'{target}' is named like an image or a model and would be overwritten: use another name")
        self.header = ""
        self.account = Account(name)
        self._notify = notify
        self._target = target
        self._rotation = rotation or Rotation()
        self._handle: int | None = None
        # A pipe or a device is never renamed.
        self._is_regular = True
        # Length of the file up to its last complete line.
        self._whole_bytes = 0
        # Whether the open file has a part of lines behind `_whole_bytes`, because removing it failed.
        self._is_torn = False
        # When the file was begun, also by an earlier run, in monotonic time.
        self._begun_s = 0.0

    def write(self, text: str, records: int = 1) -> None:
        """Append whole lines as `append`, and count their records as written or dropped.

        Raises:
            StorageError: The lines cannot be written.
        """
        self.account.produce(records)
        try:
            self.append(text)
        except BaseException as error:
            self.account.drop(loss_reason(error), records)
            raise
        self.account.write(records)

    def append(self, text: str) -> None:
        """Append whole lines and pass them to the operating system at once; the account is not changed.

        Raises:
            StorageError: The lines cannot be written, and none of them is in the file.
        """
        try:
            if self._target == STDOUT:
                sys.stdout.write(text)
                sys.stdout.flush()
            else:
                self._append(text.encode())
        except OSError as error:
            if isinstance(error, BrokenPipeError) and self._target == STDOUT:
                raise  # the program that reads stdout needs no more, as `| head`
            raise StorageError(f"cannot write '{self._target}': {error.strerror or error}") from error

    def close(self) -> None:
        """Close the file."""
        if self._handle is not None:
            if self._is_torn:
                with suppress(OSError):
                    self._remove_part()
                self._is_torn = False
            handle, self._handle = self._handle, None
            os.close(handle)

    def _append(self, data: bytes) -> None:
        try:
            self._prepare()
        except OSError:
            # Nothing was written: only a part that could not be removed keeps the file open.
            if not self._is_torn:
                self.close()
            raise
        assert self._handle is not None
        if not self._whole_bytes:
            data = self.header.encode() + data
        try:
            write_all(partial(os.write, self._handle), data)
        except OSError:
            with suppress(OSError):
                self._take_back()
            raise
        self._whole_bytes += len(data)

    def _prepare(self) -> None:
        """Open the file, or another one if it is due for rotation or is gone."""
        is_gone = self._handle is not None and self._is_gone()
        if self._handle is not None:
            try:
                self._remove_part()
            except OSError:
                # A file that is gone keeps its part: nothing else can be done, and the run goes on.
                if not is_gone:
                    raise
        if is_gone:
            self.close()
        elif self._handle is not None and self._is_regular and self._whole_bytes:
            age_s = time.monotonic() - self._begun_s
            if self._rotation.is_due(self._whole_bytes, age_s):
                self.close()
                shift(Path(self._target), self._rotation.keep)
        if self._handle is None:
            self._open()
        if is_gone:
            self._notify(f"'{self._target}' was deleted or moved: a new file was begun")

    def _is_gone(self) -> bool:
        """Return whether the path leads to another file than the open one, or to none."""
        assert self._handle is not None
        return not is_at(Path(self._target), self._handle)

    def _take_back(self) -> None:
        """Remove the part of lines that an error left behind, and close the file.

        If the part cannot be removed, the file stays open: also after it was moved, the part can be removed later.
        """
        if not self._is_regular:
            self.close()
            return
        self._is_torn = True
        self._remove_part()
        if self._whole_bytes == 0 and not self._is_gone():
            Path(self._target).unlink()
        self.close()

    def _remove_part(self) -> None:
        """Set the length of the open file, which another program may have shortened, and remove a part of lines."""
        assert self._handle is not None
        if not self._is_regular:
            return
        size = os.fstat(self._handle).st_size
        if self._is_torn:
            size = min(size, self._whole_bytes)
            os.ftruncate(self._handle, size)
            self._is_torn = False
        self._whole_bytes = size

    def _open(self) -> None:
        path = Path(self._target)
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.header and path.is_file() and _other_header(path, self.header.encode()):
            self._rotation.make_room(path)
        # With O_APPEND a line after a truncation follows the last whole line, without a gap of zeros.
        flags = (os.O_RDWR if path.is_file() else os.O_WRONLY) | os.O_CREAT | os.O_APPEND
        self._handle = os.open(path, flags, 0o666)
        status = os.fstat(self._handle)
        self._is_regular = stat.S_ISREG(status.st_mode)
        self._whole_bytes = _drop_partial_line(self._handle)
        counts_age = self._rotation.age_s is not None and self._whole_bytes > 0
        self._begun_s = time.monotonic() - (_age_s(self._handle, self.header) if counts_age else 0.0)


def _other_header(path: Path, header: bytes) -> bool:
    try:
        with path.open("rb") as stream:
            start = stream.read(len(header))
    except FileNotFoundError:
        return False
    return start not in (b"", header)


def _age_s(handle: int, header: str) -> float:
    """Return the age of a file by the `wall_s` of its first record; 0 if it has none or one in the future."""
    first, second, *_ = (*os.pread(handle, _TAIL_BYTES, 0).decode(errors="replace").split("\n", 2), "")
    if header:  # of a table, in which no value before `wall_s` is quoted
        found = dict(zip(first.split(","), second.split(","), strict=False)).get("wall_s", "")
    else:
        match = _WALL_S.search(first)
        found = match[1] if match else ""
    try:
        return max(0.0, time.time() - float(found))
    except ValueError:
        return 0.0


def _drop_partial_line(handle: int) -> int:
    """Truncate a file after its last line end and return its length in bytes."""
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or status.st_size == 0:
        return 0
    start = max(0, status.st_size - _TAIL_BYTES)
    tail = os.pread(handle, _TAIL_BYTES, start)
    whole = start + tail.rfind(b"\n") + 1
    if whole < status.st_size:
        os.ftruncate(handle, whole)
    return whole
