"""Where sinks write their lines: directly to a file, or in batches by a thread."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from edgekit.device.accounting import DISK_TOO_SLOW, loss_reason
from edgekit.device.sinks.disk_reserve import DISK_RESERVE, never_low
from edgekit.device.sinks.line_file import STDOUT, LineFile
from edgekit.device.sinks.rotation import Outage, Rotation
from edgekit.device.sinks.worker import Worker
from edgekit.errors import StorageError

# One write per second, or earlier for a full batch, because writes wear out an SD card.
_FLUSH_S = 1.0
_FLUSH_CHARS = 64 << 10
# Largest size of the buffer while the disk fails; beyond it the oldest records are dropped.
_MAX_BUFFERED_CHARS = 1 << 20
_RETRY_S = 5.0
_CLOSE_TIMEOUT_S = 1.5


class BatchedLines:
    """Writes lines about once per second in a thread, so that a slow or failing disk neither delays nor ends a run.

    While the disk fails or has too little free space, up to 1 MiB stays in memory.

    Attributes:
        account: Counts the records.
    """

    def __init__(
        self,
        lines: LineFile,
        what: str,
        notify: Callable[[str], None],
        retry_s: float = _RETRY_S,
        *,
        is_disk_low: Callable[[], bool] = never_low,
    ) -> None:
        """Write to `lines`; `what` is the name of the recording in messages to `notify`.

        While `is_disk_low` returns true, nothing is written.
        """
        self._lines = lines
        self._outage = Outage(what, notify)
        self._retry_s = retry_s
        self._is_disk_low = is_disk_low
        self._changed = threading.Condition()
        # Lines, and the number of their records.
        self._buffer: deque[tuple[str, int]] = deque()
        self._buffered_chars = 0
        self._closing = False
        self._thread: Worker | None = None
        self._reason = DISK_TOO_SLOW
        # Whether the latest batch could not be written.
        self._is_waiting = False
        self.account = lines.account

    @property
    def header(self) -> str:
        """The first line of every file."""
        return self._lines.header

    @header.setter
    def header(self, line: str) -> None:
        self._lines.header = line

    def write(self, text: str, records: int = 1) -> None:
        """Add whole lines to the buffer; an empty text, without records, begins the file."""
        with self._changed:
            if self._thread is None:
                thread = Worker(self._work, "lines")
                thread.start()
                self._thread = thread
            self._thread.check()
            self.account.produce(records)
            # An empty text only begins the file: without the limit of characters, many would grow without limit.
            if text or not self._buffer:
                self._buffer.append((text, records))
            self._buffered_chars += len(text)
            self._drop_oldest()
            if self._buffered_chars >= _FLUSH_CHARS:
                self._changed.notify()

    def close(self) -> None:
        """Write the buffered lines and close the file; do not wait for a disk that stalls.

        Records that could not be written are counted as dropped.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(_CLOSE_TIMEOUT_S)
        self.account.close(self._reason)
        if self._thread is not None:
            self._thread.check()

    def _work(self) -> None:
        pause_s = _FLUSH_S
        while True:
            with self._changed:
                self._sleep(pause_s)
                batch, self._buffer = self._buffer, deque()
                self._buffered_chars = 0
                closing = self._closing
            pause_s = self._flush(batch)
            if closing:
                self._lines.close()
                return

    def _sleep(self, pause_s: float) -> None:
        """Wait until `pause_s` is over, a batch is full (unless it cannot be written) or `close` is called.

        The caller holds the condition.
        """
        end_s = time.monotonic() + pause_s
        while not self._closing and (left_s := end_s - time.monotonic()) > 0:
            if self._buffered_chars >= _FLUSH_CHARS and not self._is_waiting:
                return
            self._changed.wait(left_s)

    def _drop_oldest(self) -> None:
        """Drop the oldest lines beyond the largest size of the buffer. The caller holds the condition."""
        while self._buffered_chars > _MAX_BUFFERED_CHARS and len(self._buffer) > 1:
            oldest, lost = self._buffer.popleft()
            self._buffered_chars -= len(oldest)
            self.account.drop(self._reason, lost)

    def _flush(self, batch: deque[tuple[str, int]]) -> float:
        """Write a batch, or put it back into the buffer; return the pause in seconds until the next."""
        if not batch:
            return _FLUSH_S
        if self._is_disk_low():
            self._put_back(batch, DISK_RESERVE)
            return _FLUSH_S
        try:
            self._lines.append("".join(text for text, _ in batch))
        except (StorageError, OSError) as error:
            self._outage.begin(str(error))
            self._put_back(batch, loss_reason(error))
            return self._retry_s
        self._reason, self._is_waiting = DISK_TOO_SLOW, False
        self.account.write(sum(records for _, records in batch))
        lost = self.account.lost
        self._outage.end(f", {lost} records were lost so far" if lost else "")
        return _FLUSH_S

    def _put_back(self, batch: deque[tuple[str, int]], reason: str) -> None:
        """Return lines that cannot be written to the buffer; those that do not fit are dropped for `reason`."""
        self._reason, self._is_waiting = reason, True
        with self._changed:
            batch.extend(self._buffer)
            self._buffer = deque(lines for lines in batch if lines[0])
            self._buffered_chars = sum(len(text) for text, _ in self._buffer)
            self._drop_oldest()


Lines: TypeAlias = LineFile | BatchedLines


def open_lines(
    target: str,
    rotation: Rotation,
    live: bool,
    notify: Callable[[str], None],
    name: str,
    is_disk_low: Callable[[], bool] = never_low,
) -> Lines:
    """Return the writer for `target`, a file or `-` for stdout; `name` is that of its account.

    Lines of a live source are written in batches by a thread, and a run survives a full or read-only disk;
    nothing is written while `is_disk_low` returns true. Lines of a recording are written at once, and a disk error ends
    the run.

    Raises:
        InputError: `target` is a folder, or named like an image or a model.
    """
    lines = LineFile(target, rotation, name=name, notify=notify)
    if not live or target == STDOUT:
        return lines
    return BatchedLines(lines, f"recording to '{target}'", notify, is_disk_low=is_disk_low)
