"""Buffer of undelivered messages: a queue in memory, copied to a file that survives outages and restarts."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from edgekit.device.accounting import Account
from edgekit.device.sinks.mqtt.journal import Contents, Journal, Message
from edgekit.errors import EdgekitError
from edgekit.text import counted

# Entries of removed messages that the file may hold beside as many as there are messages.
_MAX_OLD_ENTRIES = 2000


class Spool:
    """A thread-safe queue of at most `limit` messages; beyond that the oldest are dropped.

    Only `sync` and `close` write to the disk. What cannot be written stays in memory and is written by a later `sync`,
    so that a failing disk delays no message. Every message is counted in the account.
    """

    def __init__(self, path: Path, limit: int, account: Account, notify: Callable[[str], None]) -> None:
        """Open the file with the messages of earlier runs, or create it.

        Raises:
            TemporaryError: Another run uses the file.
            InputError: The path is not a file.
        """
        self._path = path
        self._limit = limit
        self._account = account
        self._notify = notify
        self._journal = Journal(path)
        self._lock = threading.Lock()
        self._messages: dict[int, Message] = {}
        # Numbers of the messages that the file lacks (a dictionary keeps the order), and of those to remove from it.
        self._unsaved: dict[int, None] = {}
        self._unremoved: set[int] = set()
        self._latest = 0
        # Messages with a greater number wait: older ones are being read from the file.
        self._held_above: int | None = None
        self._reported_full = False
        self._gave_up = False
        # Why the file cannot be written; "" while it can.
        self.outage = ""
        try:
            self._open()
        except OSError as error:
            self._begin_outage(error)

    def __len__(self) -> int:
        return len(self._messages)

    def append(self, messages: Iterable[tuple[str, str]]) -> None:
        """Append (topic, payload) pairs."""
        with self._lock:
            for topic, payload in messages:
                self._latest += 1
                self._messages[self._latest] = Message(self._latest, topic, payload)
                self._unsaved[self._latest] = None
                self._account.produce()
            surplus = list(itertools.islice(self._messages, max(0, len(self._messages) - self._limit)))
            self._discard(surplus)
            is_new = bool(surplus) and not self._reported_full
            self._reported_full |= is_new
        if surplus:
            self._account.drop("buffer full", len(surplus))
        if is_new:
            self._notify(f"the MQTT buffer is full ({self._limit} events): the oldest are dropped")

    def after(self, number: int, count: int) -> list[Message]:
        """Return the `count` oldest messages with numbers greater than `number`."""
        with self._lock:
            last = self._latest if self._held_above is None else self._held_above
            later = (message for message in self._messages.values() if number < message.number <= last)
            return list(itertools.islice(later, count))

    def remove(self, numbers: Iterable[int]) -> None:
        """Remove delivered messages; the next `sync` that succeeds removes them from the file."""
        with self._lock:
            # A message that was dropped meanwhile is counted as dropped.
            delivered = [number for number in numbers if number in self._messages]
            self._discard(delivered)
            if not self._messages:
                self._reported_full = False
        self._account.write(len(delivered))

    @property
    def unflushed(self) -> bool:
        """Whether a power cut would lose what `sync` has written."""
        return self._journal.unflushed

    def sync(self, *, flush: bool = False) -> None:
        """Write all changes to the file; report the start and the end of an outage of the disk.

        With `flush` the disk stores them before the call returns, so that a power cut does not lose them.
        """
        try:
            if self._journal.usable:
                self._save()
            else:
                self._open()
            if flush:
                self._journal.flush()
        except (OSError, EdgekitError) as error:
            self._begin_outage(error)
            return
        if self.outage:
            self.outage = ""
            self._notify(f"MQTT buffer '{self._path}' can be written again")

    def close(self) -> None:
        """Write all changes and close the file; count and report what it lacks."""
        self.sync(flush=True)
        self._journal.close()
        self.give_up(self.outage)

    def give_up(self, reason: str) -> None:
        """Count and report, once, what the file lacks because of `reason`."""
        with self._lock:
            if self._gave_up:
                return
            self._gave_up = True
            lost, repeated = len(self._unsaved), len(self._unremoved)
            self._discard(list(self._unsaved))
        if not lost and not repeated:
            return
        if lost:
            self._account.drop("buffer not writable", lost)
        self._notify(
            f"MQTT buffer '{self._path}' cannot be written ({reason}): "
            f"{counted(lost, 'event')} lost, {repeated} delivered before are sent again by the next run"
        )

    def _discard(self, numbers: Sequence[int]) -> None:
        """Take messages out of the queue; the caller holds the lock."""
        for number in numbers:
            del self._messages[number]
            if number in self._unsaved:
                del self._unsaved[number]
            else:
                self._unremoved.add(number)

    def _save(self) -> None:
        with self._lock:
            messages = list(self._messages.values())
            added = [self._messages[number] for number in self._unsaved]
            removed = set(self._unremoved)
        if not messages:
            self._journal.clear()
        elif self._journal.entries > 2 * len(messages) + _MAX_OLD_ENTRIES:
            self._journal.rewrite(messages)
        elif added or removed:
            self._journal.append(added, removed)
        self._settle(added, removed)

    def _settle(self, added: Sequence[Message], removed: set[int]) -> None:
        """Update the record of what the file holds: `added` is in it, `removed` is not."""
        with self._lock:
            for message in added:
                self._unsaved.pop(message.number, None)
            self._unremoved -= removed
            # Removed while they were being written.
            self._unremoved.update(message.number for message in added if message.number not in self._messages)

    def _open(self) -> None:
        """Open the file, at the start or after it was deleted, and add its messages to the queue."""
        contents = self._journal.open()
        with self._lock:
            found = list(contents.messages.values())
            is_start = not self._latest
            if not is_start:
                # Numbers of this run are taken.
                found = [Message(self._latest + 1 + place, m.topic, m.payload) for place, m in enumerate(found)]
            self._latest = self._held_above = max([self._latest, *(message.number for message in found)])
            waiting = list(self._messages.values())
            removed = set(self._unremoved)
        try:
            copy = self._renew(contents, [*waiting, *found], can_continue=is_start and not contents.rewrite)
            with self._lock:
                self._messages |= {message.number: message for message in found}
                # Messages that were appended meanwhile have greater numbers.
                self._messages = dict(sorted(self._messages.items()))
        finally:
            self._held_above = None
        self._account.produce(len(found))
        self._settle(waiting, removed)
        if contents.damaged:
            self._account.produce(contents.damaged)
            self._account.drop("damaged", contents.damaged)
            self._notify(
                f"MQTT buffer '{self._path}' is damaged: {counted(len(found), 'event')} could be read, "
                f"{counted(contents.damaged, 'entry', 'entries')} could not{copy and f', kept in {copy}'}"
            )

    def _renew(self, contents: Contents, messages: Sequence[Message], *, can_continue: bool) -> str:
        """Replace the file unless it is sound and can be continued; return the quoted name of a copy, or ""."""
        try:
            if contents.damaged:
                return f"'{self._journal.set_aside(messages)}'"
            if not can_continue:
                self._journal.rewrite(messages)
        except OSError:
            # Damaged lines do no harm where they are.
            if not can_continue:
                # The next `sync` opens the file again: its messages are not in the queue yet.
                self._journal.close()
                raise
        return ""

    def _begin_outage(self, error: Exception) -> None:
        reason = getattr(error, "strerror", None) or str(error)
        if not self.outage:
            self._notify(f"MQTT buffer '{self._path}' cannot be written ({reason}): events are buffered in memory")
        self.outage = reason
