"""Text files that grow by whole lines: a reader, a full disk or a power cut never leaves half of one for long."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from edgekit.device.imaging import IMAGE_SUFFIXES
from edgekit.device.sinks.rotation import Rotation, shift
from edgekit.errors import InputError, StorageError
from edgekit.model_store import MODEL_SUFFIXES

STDOUT = "-"
# Longer than any line; a power cut leaves at most one half line at a file's end.
_TAIL_BYTES = 1 << 20


class Lines(Protocol):
    """Where whole lines go. Every file begins with `header`, "" or one line."""

    header: str

    def write(self, text: str) -> None:
        """Append `text`, whole lines or nothing.

        Raises:
            StorageError: It cannot be written.
        """
        ...

    def close(self) -> None:
        """Finish what was taken and close the file."""
        ...


def open_lines(target: str, rotation: Rotation, live: bool, notify: Callable[[str], None]) -> Lines:
    """Return lines that go to `target`.

    A live source's are written in batches by a thread, which outlives a full or read-only disk; others are written at
    once, and a disk that takes no more ends the run, since that file is what the run is for.

    Raises:
        InputError: `target` cannot be a file of lines.
    """
    lines = LineFile(target, rotation)
    if not live or target == STDOUT:
        return lines
    from edgekit.device.sinks.batches import BatchedLines

    return BatchedLines(lines, f"recording to '{target}'", notify)


class LineFile:
    """A file written in place, line by line, so that it can be followed while it grows; `-` is stdout.

    It is created, or emptied, when the first line comes; with a rotation it is continued, as by a service that starts
    again. A line that does not fit on the disk is taken back, and writing may be tried again.
    """

    def __init__(self, target: str, rotation: Rotation | None = None) -> None:
        """Remember `target`.

        Raises:
            InputError: It is a folder, or named as only pictures and models are.
        """
        if target != STDOUT and Path(target).is_dir():
            raise InputError(f"'{target}' is a folder: name a file")
        if Path(target).suffix.lower() in (*IMAGE_SUFFIXES, *MODEL_SUFFIXES):
            # It is usually an input that was named by mistake.
            raise InputError(f"'{target}' is named like a picture or a model and would be overwritten: rename it")
        self.header = ""
        self._target = target
        self._rotation = rotation or Rotation()
        self._handle: int | None = None
        self._whole_bytes = 0
        self._opened_s = 0.0
        self._continue = self._rotation.active

    def write(self, text: str) -> None:
        """Append `text`, whole lines or nothing, and hand it to the system at once.

        Raises:
            StorageError: It cannot be written.
        """
        try:
            if self._target == STDOUT:
                sys.stdout.write(text)
                sys.stdout.flush()
            else:
                self._append(text.encode())
        except BrokenPipeError:
            raise
        except OSError as error:
            raise StorageError(f"cannot write '{self._target}': {error.strerror or error}") from error

    def close(self) -> None:
        """Close the file."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            os.close(handle)

    def _append(self, data: bytes) -> None:
        age_s = time.monotonic() - self._opened_s
        if self._handle is not None and self._whole_bytes and self._rotation.is_due(self._whole_bytes, age_s):
            self.close()
            shift(Path(self._target), self._rotation.keep)
        if self._handle is None:
            self._open()
        if not self._whole_bytes:
            data = self.header.encode() + data
        assert self._handle is not None
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self._handle, left) :]
        except OSError:
            # Pipes and devices have no length to go back to.
            with suppress(OSError):
                os.ftruncate(self._handle, self._whole_bytes)
                if self._whole_bytes == 0:
                    Path(self._target).unlink()
            with suppress(OSError):
                self.close()
            raise
        self._whole_bytes += len(data)

    def _open(self) -> None:
        path = Path(self._target)
        path.parent.mkdir(parents=True, exist_ok=True)
        if self._continue and self.header and _other_header(path, self.header.encode()):
            shift(path, self._rotation.keep if self._rotation.active else None)
        # With O_APPEND a line goes behind whatever a truncation left, never behind a hole.
        flags = (os.O_RDWR if path.is_file() else os.O_WRONLY) | os.O_CREAT | os.O_APPEND
        self._handle = os.open(path, flags | (0 if self._continue else os.O_TRUNC), 0o666)
        self._whole_bytes = _drop_half_line(self._handle) if self._continue else 0
        self._opened_s = time.monotonic()
        # From here on, opening again goes on with the same file.
        self._continue = True


def _other_header(path: Path, header: bytes) -> bool:
    try:
        with path.open("rb") as stream:
            start = stream.read(len(header))
    except FileNotFoundError:
        return False
    return start not in (b"", header)


def _drop_half_line(handle: int) -> int:
    """Cut a file at its last line end and return its length."""
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or status.st_size == 0:
        return 0
    start = max(0, status.st_size - _TAIL_BYTES)
    tail = os.pread(handle, _TAIL_BYTES, start)
    whole = start + tail.rfind(b"\n") + 1
    if whole < status.st_size:
        os.ftruncate(handle, whole)
    return whole
