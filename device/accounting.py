"""Accounting of a sink: each item that it received is written, dropped for a reason, or waiting."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any


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

    def produce(self, count: int = 1) -> None:
        """Count items that the sink received, or found waiting in a buffer of an earlier run."""
        with self._lock:
            self._produced += count

    def write(self, count: int = 1) -> None:
        """Count items that are stored, or that the receiver confirmed."""
        with self._lock:
            self._written += count

    def drop(self, reason: str, count: int = 1) -> None:
        """Count items that are lost, by a short reason such as "disk full"."""
        with self._lock:
            self._dropped[reason] += count

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

    def _waiting(self) -> int:
        return self._produced - self._written - self._dropped.total()
