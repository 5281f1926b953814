"""Events that the broker has not confirmed: a queue in memory, copied to an SQLite file that survives restarts."""

from __future__ import annotations

import itertools
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgekit.device.sinks.context import Account, Shutdown
from edgekit.device.sinks.writer import Writer, WriterRules
from edgekit.errors import StorageError, TemporaryError
from edgekit.text import counted

# An event that is confirmed within this time is not written, which saves the SD card a write.
_SAVE_AFTER_S = 0.3
_RETRY_S = 5.0
_CLOSE_S = 0.5
_MOST_CHANGES = 100_000
_TABLE = "CREATE TABLE IF NOT EXISTS waiting (id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT, payload BLOB)"


@dataclass(frozen=True)
class Message:
    """A message that waits; numbers increase in the order of sending."""

    number: int
    topic: str
    payload: str


class Spool:
    """A thread-safe queue of at most `limit` messages; beyond that the oldest are dropped.

    A thread copies the queue to the file, so that a failing disk delays no message. Every message is counted.
    """

    def __init__(self, path: Path, limit: int, account: Account, notify: Callable[[str], None]) -> None:
        """Open the file with the messages of earlier runs, or create it.

        Raises:
            TemporaryError: Another run uses the file.
        """
        self._path = path
        self._limit = limit
        self._account = account
        self._notify = notify
        self._lock = threading.Lock()
        self._file = _SpoolFile(path)
        messages = self._file.open(notify)
        self._messages = {message.number: message for message in messages}
        # Number of the latest message. They count from the time in microseconds, so that they are also greater than the
        # numbers in a file that could not be read now.
        self._latest = max([time.time_ns() // 1000, *self._messages])
        self._reported_full = False
        account.produce(len(messages))
        rules = WriterRules(
            what=f"saving the MQTT buffer '{path}'",
            most=_MOST_CHANGES,
            slow="disk too slow",
            holds=True,  # changes wait while the disk fails: the messages are in memory, too
            every_s=_SAVE_AFTER_S,
            pauses_s=(_RETRY_S,),
        )
        # A change is a message to add, or the number of one to remove. The account counts changes, not messages.
        self._saving: Writer[Message | int] = Writer(
            self._file, rules, Account("mqtt buffer"), Shutdown(_CLOSE_S), notify, threaded=True
        )

    def __len__(self) -> int:
        return len(self._messages)

    def append(self, topic: str, payload: str) -> None:
        """Append a message; if there are more than `limit`, drop the oldest, and report this once."""
        with self._lock:
            self._latest += 1
            message = Message(self._latest, topic, payload)
            self._messages[message.number] = message
            surplus = list(self._messages)[: -self._limit]  # all but the newest `limit`
            for number in surplus:
                del self._messages[number]
            must_report = bool(surplus) and not self._reported_full
            self._reported_full = self._reported_full or must_report
        self._account.produce()
        self._account.drop("buffer full", len(surplus))
        self._saving.put(message)
        for number in surplus:
            self._saving.put(number)
        if must_report:
            self._notify(f"the MQTT buffer is full ({self._limit} events): the oldest are dropped")

    def after(self, number: int, count: int) -> list[Message]:
        """Return the `count` oldest messages with numbers greater than `number`."""
        with self._lock:
            later = (message for message in self._messages.values() if number < message.number)
            return list(itertools.islice(later, count))

    def remove(self, numbers: Iterable[int]) -> None:
        """Remove delivered messages; one that was dropped meanwhile stays counted as dropped."""
        with self._lock:
            delivered = [number for number in numbers if self._messages.pop(number, None)]
            if not self._messages:
                self._reported_full = False  # when it is full again, this is reported again
        self._account.write(len(delivered))
        for number in delivered:
            self._saving.put(number)

    def close(self) -> None:
        """Write all changes and close the file; count and report the messages that could not be written."""
        self._saving.__exit__()
        # Changes that the writer could not finish in time count as lost: then its thread may still use the file.
        if not self._saving.account.lost:
            self._file.close()
        lost = len(self._messages.keys() - self._file.saved)
        self._account.drop("buffer not writable", lost)
        if lost:
            self._notify(f"MQTT buffer '{self._path}' cannot be written: {counted(lost, 'event')} lost")


class _SpoolFile:
    """Target of the changes: a message to add, or the number of one to remove.

    Attributes:
        saved: Numbers of the messages in the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database: sqlite3.Connection | None = None
        self.saved: set[int] = set()

    def open(self, notify: Callable[[str], None]) -> list[Message]:
        """Lock the file and return its messages; a file that cannot be read is renamed.

        Raises:
            TemporaryError: Another run uses the file.
        """
        try:
            rows = self._connected().execute("SELECT id, topic, payload FROM waiting ORDER BY id").fetchall()
        except OSError:
            return []  # writing reports why the file cannot be opened
        # A message of SQLite may contain bytes of a damaged file. Python cannot decode them: UnicodeDecodeError.
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            self.close()
            if "locked" in str(error):
                raise TemporaryError(
                    f"MQTT buffer '{self._path}' is in use by another run: give each run its own --mqtt-topic"
                ) from error
            # An OperationalError is a fault of the disk, which writing reports.
            if not isinstance(error, sqlite3.OperationalError):
                self._set_aside(error, notify)
            return []
        self.saved = {number for number, _topic, _payload in rows}
        return [Message(number, topic, _text(payload)) for number, topic, payload in rows]

    def _set_aside(self, error: Exception, notify: Callable[[str], None]) -> None:
        """Rename a damaged file, so that a new one can take its place."""
        damaged = self._path.with_name(f"{self._path.name}.damaged")
        with suppress(OSError):
            self._path.replace(damaged)
            notify(f"MQTT buffer '{self._path}' is damaged ({error}): it is kept as '{damaged}'")

    def write(self, items: Sequence[Message | int]) -> int:
        """Write all changes and flush them to the disk; return their number.

        A change is a message to add, or the number of one to remove. A message that is removed again at once is never
        written.
        """
        removed = {item for item in items if isinstance(item, int)}
        added = [item for item in items if isinstance(item, Message) and item.number not in removed]
        removed &= self.saved  # the others are not in the file
        if added or removed:
            try:
                with self._connected() as database:
                    rows = [(item.number, item.topic, item.payload) for item in added]
                    database.executemany("INSERT OR REPLACE INTO waiting (id, topic, payload) VALUES (?, ?, ?)", rows)
                    database.executemany("DELETE FROM waiting WHERE id = ?", [(number,) for number in removed])
            except sqlite3.Error as error:
                raise StorageError(f"cannot write '{self._path}': {error}") from error
            self.saved = (self.saved | {item.number for item in added}) - removed
        return len(items)

    def close(self) -> int:
        """Close the file; return how many changes become safe by this: none, because `write` commits each one."""
        database, self._database = self._database, None
        if database is not None:
            with suppress(sqlite3.Error):
                database.close()
        return 0

    def _connected(self) -> sqlite3.Connection:
        """Return the connection to the file, which is created if necessary and locked against other processes."""
        if self._database is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # A lock of another process is an error at once. The thread of the writer uses the connection later.
            self._database = sqlite3.connect(self._path, timeout=0, check_same_thread=False)
            for statement in ("PRAGMA locking_mode=EXCLUSIVE", "PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL"):
                self._database.execute(statement)
            self._database.execute("BEGIN IMMEDIATE")  # takes the lock now, not at the first change
            self._database.execute(_TABLE)
            self._database.commit()
        return self._database


def _text(payload: str | bytes) -> str:
    return payload.decode(errors="replace") if isinstance(payload, bytes) else payload
