"""Buffer of undelivered messages in an SQLite file, which survives outages of the broker and restarts."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from edgekit.errors import InputError

T = TypeVar("T")

_LOCK_TIMEOUT_S = 1.0
_SCHEMA = "CREATE TABLE IF NOT EXISTS waiting (id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT, payload BLOB)"


@dataclass(frozen=True)
class SpooledMessage:
    """A message in the spool; ids grow in the order of arrival, across restarts too."""

    row_id: int
    topic: str
    payload: bytes


class Spool:
    """A thread-safe queue of messages in an SQLite file.

    It holds at most `limit` messages; beyond that the oldest are dropped and counted in `dropped`. If the disk fails,
    is full or read-only, this is reported once and the queue continues in memory.
    """

    def __init__(self, path: Path, limit: int, notify: Callable[[str], None]) -> None:
        """Open the file with the messages of earlier runs, or create it.

        Raises:
            InputError: Another run uses the file.
        """
        self._path = path
        self._limit = limit
        self._notify = notify
        self._lock = threading.Lock()
        self.dropped = 0
        self._reported_full = False
        self._latest_read_id = 0
        self.in_memory = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = _open(path)
        except (OSError, sqlite3.Error) as error:
            if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
                raise InputError(
                    f"MQTT buffer '{path}' is in use by another run: give each run its own --mqtt-topic"
                ) from error
            self._database = self._to_memory(error)
        self._count: int = self._database.execute("SELECT COUNT(*) FROM waiting").fetchone()[0]

    def __len__(self) -> int:
        return self._count

    def append(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Append (topic, payload) pairs with one write to the disk."""
        self._retry_in_memory(lambda: self._insert(messages))

    def after(self, row_id: int, count: int) -> list[SpooledMessage]:
        """Return the `count` oldest messages with ids greater than `row_id`."""
        query = "SELECT id, topic, payload FROM waiting WHERE id > ? ORDER BY id LIMIT ?"
        rows = self._retry_in_memory(lambda: self._database.execute(query, (row_id, count)).fetchall())
        if rows:
            self._latest_read_id = max(self._latest_read_id, rows[-1][0])
        return [SpooledMessage(*row) for row in rows]

    def remove(self, row_ids: Sequence[int]) -> None:
        """Remove delivered messages."""
        self._retry_in_memory(lambda: self._delete(row_ids))

    def close(self) -> None:
        """Close the file."""
        with self._lock, suppress(sqlite3.Error):
            self._database.close()

    def _retry_in_memory(self, action: Callable[[], T]) -> T:
        """Return the result of `action`; if the disk fails, move the queue to memory and repeat the action."""
        with self._lock:
            try:
                return action()
            except sqlite3.Error as error:
                self._database = self._to_memory(error)
                return action()

    def _insert(self, messages: Sequence[tuple[str, bytes]]) -> None:
        with self._database:
            self._database.executemany("INSERT INTO waiting (topic, payload) VALUES (?, ?)", messages)
            surplus = max(0, self._count + len(messages) - self._limit)
            if surplus:
                oldest = "DELETE FROM waiting WHERE id IN (SELECT id FROM waiting ORDER BY id LIMIT ?)"
                self._database.execute(oldest, (surplus,))
        self._count += len(messages) - surplus
        self.dropped += surplus
        if surplus and not self._reported_full:
            self._reported_full = True
            self._notify(f"the MQTT buffer is full ({self._limit} events): the oldest are dropped")

    def _delete(self, row_ids: Sequence[int]) -> None:
        with self._database:
            deleted = self._database.executemany("DELETE FROM waiting WHERE id = ?", [(row_id,) for row_id in row_ids])
        self._count -= max(0, deleted.rowcount)
        if self._count == 0:
            self._reported_full = False

    def _to_memory(self, error: Exception) -> sqlite3.Connection:
        """Return a queue in memory with the messages that can still be read from the file, under the same ids."""
        reason = getattr(error, "strerror", None) or error
        self._notify(f"MQTT buffer '{self._path}' cannot be used ({reason}): events are buffered in memory")
        self.in_memory = True
        memory = sqlite3.connect(":memory:", check_same_thread=False)
        memory.execute(_SCHEMA)
        # Ids of new messages must exceed every id that was read, even if the queue is empty.
        memory.execute("INSERT INTO sqlite_sequence VALUES ('waiting', ?)", (self._latest_read_id,))
        if hasattr(self, "_database"):
            with suppress(sqlite3.Error):
                rows = self._database.execute("SELECT id, topic, payload FROM waiting ORDER BY id").fetchall()
                memory.executemany("INSERT INTO waiting VALUES (?, ?, ?)", rows)
            with suppress(sqlite3.Error):
                self._database.close()
        memory.commit()
        self._count = memory.execute("SELECT COUNT(*) FROM waiting").fetchone()[0]
        return memory


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=_LOCK_TIMEOUT_S, check_same_thread=False)
    try:
        # The file is locked during the whole run, so that no other run sends these events. The index of the WAL then
        # stays in memory.
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = WAL")
        # NORMAL causes fewer flushes to the SD card. A power cut can lose the latest events but not the file; a kill
        # loses nothing.
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("BEGIN EXCLUSIVE")
        database.execute(_SCHEMA)
        database.commit()
    except BaseException:
        database.close()
        raise
    return database
