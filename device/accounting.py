"""Accounting of an output: each item that it received is written, dropped for a reason, or waiting."""

from __future__ import annotations

import errno
import threading
from collections import Counter
from typing import Any

_REASONS = {
    errno.ENOSPC: "disk full",
    errno.EDQUOT: "disk full",
    errno.EROFS: "disk read-only",
    errno.ENOENT: "folder missing",
    errno.ENOTDIR: "folder missing",
    errno.EEXIST: "folder missing",
}


class Account:
    """Counts of one kind of item of one sink, such as the events of MQTT. Any thread may change or read them.

    The sink calls `produce` when it receives an item, and later either `write` or `drop`. `waiting` is the rest.

    Example:
        >>> account = Account("jsonl")
        >>> account.produce()
        >>> account.drop("disk full")
        >>> account.as_document()
        {'produced': 1, 'written': 0, 'dropped': {'disk full': 1}, 'waiting': 0}
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.Lock()
        self._produced = 0
        self._written = 0
        self._dropped: Counter[str] = Counter()
        self._closed = False

    def produce(self, count: int = 1) -> None:
        """Count items that the sink received, or found waiting in a buffer of an earlier run."""
        with self._lock:
            if not self._closed:
                self._produced += count

    def write(self, count: int = 1) -> None:
        """Count items that are stored, or that the receiver confirmed."""
        with self._lock:
            if not self._closed:
                self._written += count

    def drop(self, reason: str, count: int = 1) -> None:
        """Count items that are lost, by a short reason such as "disk full"."""
        with self._lock:
            if count and not self._closed:
                self._dropped[reason] += count

    def close(self, reason: str) -> None:
        """Count all waiting items as dropped for `reason`, for a sink whose items do not outlive the run.

        Later counts have no effect: a thread that was not waited for may still finish its work.
        """
        with self._lock:
            if waiting := self._waiting():
                self._dropped[reason] += waiting
            self._closed = True

    @property
    def waiting(self) -> int:
        """Number of items that are neither written nor dropped."""
        with self._lock:
            return self._waiting()

    @property
    def lost(self) -> int:
        """Number of dropped items."""
        with self._lock:
            return self._dropped.total()

    def as_document(self) -> dict[str, Any]:
        """Return the counts ready for JSON."""
        with self._lock:
            return {
                "produced": self._produced,
                "written": self._written,
                "dropped": dict(self._dropped),
                "waiting": self._waiting(),
            }

    def describe(self) -> str:
        """Return the counts as text, such as "jsonl 97 of 100 written, 3 dropped (3 disk full)"."""
        with self._lock:
            total = "" if self._written == self._produced else f" of {self._produced}"
            reasons = ", ".join(f"{count} {reason}" for reason, count in self._dropped.most_common())
            dropped = f", {self._dropped.total()} dropped ({reasons})" if reasons else ""
            waiting = f", {self._waiting()} waiting" if self._waiting() else ""
            return f"{self.name} {self._written}{total} written{dropped}{waiting}"

    def _waiting(self) -> int:
        return self._produced - self._written - self._dropped.total()


def loss_reason(error: BaseException) -> str:
    """Return the reason of a failed write for `Account.drop`, such as "disk full" or "input/output error"."""
    if isinstance(error, (KeyboardInterrupt, SystemExit)):
        return "end of the run"
    cause = error if isinstance(error, OSError) else error.__cause__
    if not isinstance(cause, OSError):
        return type(error).__name__
    return _REASONS.get(cause.errno or 0) or (cause.strerror or type(cause).__name__).lower()
