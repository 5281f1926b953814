"""Text files that grow by whole lines: a reader, a full disk or a power cut never leaves half of one for long."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from edgekit.device.imaging import IMAGE_SUFFIXES
from edgekit.errors import InputError, StorageError
from edgekit.modelfiles import MODEL_SUFFIXES

STDOUT = "-"


class LineFile:
    """A file written in place, line by line, so that it can be followed while it grows; `-` is stdout.

    It is created, or emptied, when the first line comes. A line that does not fit on the disk is taken back.
    """

    def __init__(self, target: str) -> None:
        """Remember `target`.

        Raises:
            InputError: It is a folder, or named as only pictures and models are.
        """
        if target != STDOUT and Path(target).is_dir():
            raise InputError(f"'{target}' is a folder: name a file")
        if Path(target).suffix.lower() in (*IMAGE_SUFFIXES, *MODEL_SUFFIXES):
            # It is usually an input that was named by mistake.
            raise InputError(f"'{target}' is named like a picture or a model and would be overwritten: rename it")
        self._target = target
        self._handle: int | None = None
        self._whole_bytes = 0

    def write(self, text: str) -> None:
        """Append `text`, one or more whole lines, and hand it to the system at once.

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
            os.close(self._handle)
            self._handle = None

    def _append(self, data: bytes) -> None:
        if self._handle is None:
            path = Path(self._target)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
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
            raise
        self._whole_bytes += len(data)
