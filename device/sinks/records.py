"""Records of results in a text file or on standard output: the part that JSON lines and CSV share."""

from __future__ import annotations

import os
import re
import stat
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.device.sink import STDOUT
from edgekit.device.sinks.context import RunContext
from edgekit.device.sinks.disk_reserve import RECORDS
from edgekit.device.sinks.file_series import FileSeries
from edgekit.device.sinks.writer import Target, Writer, WriterRules
from edgekit.errors import InputError, StorageError
from edgekit.files import write_all

if TYPE_CHECKING:
    from edgekit.device.detections import FrameResult
    from edgekit.device.frame import Frame


# Longer than any line; a power cut leaves at most one partial line at the end of a file.
_TAIL_BYTES = 1 << 20
# The first Unix time in a file: the `wall_s` of its first record.
_UNIX_TIME = re.compile(rb"\b\d{10}\.\d+")


class TextFile:
    """A file to which lines are appended in place, so that other programs can follow it; an existing one is continued.

    Lines that do not fit on the disk are removed again.

    Attributes:
        size_bytes: Current size.
        age_s: Age when it was opened, by the time of its first record.
    """

    def __init__(self, path: Path, header: str) -> None:
        """Open or create `path` and its folder; a new file begins with `header`.

        Raises:
            StorageError: The file cannot be created.
        """
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # A file is also read, for its last line and its first record. A pipe or a device is not.
            flags = os.O_RDWR if path.is_file() or not path.exists() else os.O_WRONLY
            # O_APPEND: if another program empties the file, the next line is at its beginning.
            self._handle = os.open(path, flags | os.O_CREAT | os.O_APPEND, 0o666)
            self._is_regular = stat.S_ISREG(os.fstat(self._handle).st_mode)
            self.size_bytes = self._drop_partial_line() if self._is_regular else 0
            # A file that is continued has its header; into a new one `write` puts it before the first lines.
            self._header = b"" if self.size_bytes else header.encode()
            # For the rotation by time, see `OutputFile`.
            self.age_s = self._first_record_age_s() if self.size_bytes else 0.0
        except OSError as error:
            raise self._failure(error) from error

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._handle

    def write(self, items: Sequence[str]) -> int:
        """Append whole lines and pass them to the operating system at once; return the number of items.

        Raises:
            StorageError: The lines cannot be written, and none of them is in the file.
        """
        data = self._header + "".join(items).encode()
        try:
            write_all(partial(os.write, self._handle), data)
        except OSError as error:
            if self._is_regular:
                os.ftruncate(self._handle, self.size_bytes)
            raise self._failure(error) from error
        self._header = b""
        self.size_bytes += len(data)
        return len(items)

    def close(self) -> int:
        """Close the file."""
        os.close(self._handle)
        return 0

    def _drop_partial_line(self) -> int:
        """Truncate a file that a power cut has left with a part of a line; return its size in bytes."""
        size_bytes = os.fstat(self._handle).st_size
        tail_at = max(0, size_bytes - _TAIL_BYTES)
        tail = os.pread(self._handle, _TAIL_BYTES, tail_at)
        whole_bytes = tail_at + tail.rfind(b"\n") + 1  # rfind returns -1 if there is no line end
        if whole_bytes < size_bytes:
            os.ftruncate(self._handle, whole_bytes)
        return whole_bytes

    def _first_record_age_s(self) -> float:
        """Return the age of the file's first record in seconds; 0 if it has none."""
        found = _UNIX_TIME.search(os.pread(self._handle, _TAIL_BYTES, 0))
        return 0.0 if found is None else max(0.0, time.time() - float(found[0]))

    def _failure(self, error: OSError) -> StorageError:
        return StorageError(f"cannot write '{self._path}': {error.strerror or error}")


class StandardOutput(Target[str]):
    """Standard output as the target of a writer."""

    def write(self, items: Sequence[str]) -> int:
        """Write lines and pass them on at once.

        Raises:
            BrokenPipeError: The program that reads stdout needs no more, as `| head`.
            StorageError: Nothing can be written.
        """
        try:
            sys.stdout.write("".join(items))
            sys.stdout.flush()
        except BrokenPipeError:  # an OSError, but no fault
            raise
        except OSError as error:
            raise StorageError(f"cannot write to stdout: {error.strerror or error}") from error
        return len(items)


def has_header(path: Path, header: str) -> bool:
    """Return whether a file can be continued: it is missing, empty, no regular file, or begins with `header`."""
    if not header or not path.is_file():
        return True
    with path.open("rb") as stream:
        return stream.read(len(header.encode())) in (b"", header.encode())


# One write per second, or earlier for a full batch, because writes wear out an SD card.
_EVERY_S = 1.0
_EARLY_CHARS = 64 << 10
# Records that wait while the disk fails.
_MOST_CHARS = 1 << 20
_RETRY_S = 5.0
# With `--records changes`, the time between two records without a change.
_CHANGES_EVERY_S = 1.0


class RecordSink(Writer[str]):
    """Writes the records of each frame: lines of text.

    The records of a live source are written about once per second, those of a recording at once.
    """

    def __init__(
        self,
        name: str,
        target: str,
        run: RunContext,
        records: Callable[[FrameResult], tuple[str, int]],
        header: str = "",
    ) -> None:
        """Prepare to write.

        Args:
            name: Name of the account.
            target: A file, or `-` for stdout.
            run: The run.
            records: Returns the lines of a frame and their number.
            header: The first line of each file, or "".

        Raises:
            InputError: `target` is a folder, or named like an image or a model.
        """
        from edgekit.device.frame import presentation_time_s

        if target != STDOUT:
            _check_name(Path(target))
        rules = WriterRules(
            what=f"recording to '{target}'",
            most=_MOST_CHARS,
            slow="disk too slow",
            holds=True,  # 1 MiB of lines waits while the disk fails
            every_s=_EVERY_S,
            early=_EARLY_CHARS,
            pauses_s=(_RETRY_S,),
            reserve=run.reserve(Path(target), RECORDS),  # unused for stdout, which has no thread
        )
        files: Target[str] = StandardOutput()
        if target != STDOUT:
            files = FileSeries(
                Path(target),
                run.rules.rotation,
                lambda path, _first_item: TextFile(path, header),
                run.say,
                continues=lambda path: has_header(path, header),
            )
        # To stdout the run itself writes, so that it ends when the program that reads the lines has ended.
        threaded = run.source.live and target != STDOUT
        super().__init__(files, rules, run.account(name), run.shutdown, run.notify, threaded=threaded)
        self._records = records
        self._writes_all = run.rules.records == "all"
        self._time_s = presentation_time_s(run.source)
        # Faces and time of the latest records.
        self._faces: frozenset[tuple[int | None, str, str | None]] | None = None
        self._at_s = float("-inf")

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Append the records of the frame."""
        if self._writes_all or self._is_change(frame, result):
            text, count = self._records(result)
            self.put(text, count=count, weight=len(text) + 1)

    def _is_change(self, frame: Frame, result: FrameResult) -> bool:
        """Return whether a frame is written with `--records changes`, and if so, keep it for the next comparison.

        Faces, labels or zones have changed since the last written frame, it has a health sample, or a second has
        passed.
        """
        faces = frozenset((face.track_id, face.label, face.zone) for face in result.faces)
        now_s = self._time_s(frame)
        if faces == self._faces and result.health is None and now_s - self._at_s < _CHANGES_EVERY_S:
            return False
        self._faces, self._at_s = faces, now_s
        return True


def _check_name(path: Path) -> None:
    """Raise InputError for a folder, and for the name of a file that is usually an input."""
    from edgekit.device.imaging import IMAGE_SUFFIXES
    from edgekit.model_store import MODEL_SUFFIXES

    if path.is_dir():
        raise InputError(f"'{path}' is a folder: name a file")
    if path.suffix.lower() in (*IMAGE_SUFFIXES, *MODEL_SUFFIXES):
        raise InputError(f"'{path}' is named like an image or a model and would be overwritten: use another name")
