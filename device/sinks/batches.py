"""Lines written in batches by a thread: the pipeline waits for no disk, and a disk that fails ends no run."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from edgekit.device.sinks.lines import LineFile
from edgekit.device.sinks.rotation import Outage
from edgekit.device.sinks.worker import Worker
from edgekit.errors import StorageError

# A card wears by writes: one a second, or sooner when much has come.
_FLUSH_S = 1.0
_FLUSH_CHARS = 64 << 10
# What waits while the disk takes nothing; then the oldest go.
_WAITING_CHARS = 1 << 20
_RETRY_S = 5.0
_LEAVE_S = 1.5


class BatchedLines:
    """Takes lines at once and writes them soon; what a disk does not take waits in memory up to a bound."""

    def __init__(self, lines: LineFile, what: str, notify: Callable[[str], None], retry_s: float = _RETRY_S) -> None:
        """Write to `lines`; `what` names the recording in messages to `notify`."""
        self._lines = lines
        self._outage = Outage(what, notify)
        self._retry_s = retry_s
        self._news = threading.Condition()
        self._waiting: deque[str] = deque()
        self._waiting_chars = 0
        self._closing = False
        self._thread: Worker | None = None
        self.lost_lines = 0

    @property
    def header(self) -> str:
        """What every file begins with."""
        return self._lines.header

    @header.setter
    def header(self, line: str) -> None:
        self._lines.header = line

    def write(self, text: str) -> None:
        """Take whole lines."""
        with self._news:
            if self._thread is None:
                self._thread = Worker(self._work, "lines")
                self._thread.start()
            self._thread.check()
            self._waiting.append(text)
            self._waiting_chars += len(text)
            while self._waiting_chars > _WAITING_CHARS and len(self._waiting) > 1:
                oldest = self._waiting.popleft()
                self._waiting_chars -= len(oldest)
                self.lost_lines += oldest.count("\n")
            if self._waiting_chars >= _FLUSH_CHARS:
                self._news.notify()

    def close(self) -> None:
        """Write what waits, for a moment at most, and close the file."""
        with self._news:
            self._closing = True
            self._news.notify()
        if self._thread is not None:
            self._thread.join(_LEAVE_S)
            self._thread.check()

    def _work(self) -> None:
        pause_s = _FLUSH_S
        while True:
            with self._news:
                self._sleep(pause_s)
                batch, self._waiting = self._waiting, deque()
                self._waiting_chars = 0
                closing = self._closing
            pause_s = self._flush(batch)
            if closing:
                self._lines.close()
                return

    def _sleep(self, pause_s: float) -> None:
        """Wait for `pause_s`, or in good times for a full batch, or for the end; the condition is held."""
        end_s = time.monotonic() + pause_s
        while not self._closing and (left_s := end_s - time.monotonic()) > 0:
            if self._waiting_chars >= _FLUSH_CHARS and not self._outage.active:
                return
            self._news.wait(left_s)

    def _flush(self, batch: deque[str]) -> float:
        """Write a batch, or put it back; return how long to wait for the next."""
        if not batch:
            return _FLUSH_S
        try:
            self._lines.write("".join(batch))
        except (StorageError, OSError) as error:
            self._outage.begin(str(error))
            with self._news:
                batch.extend(self._waiting)
                self._waiting = batch
                self._waiting_chars = sum(map(len, batch))
            return self._retry_s
        self._outage.end(f", {self.lost_lines} lines were lost so far" if self.lost_lines else "")
        return _FLUSH_S
