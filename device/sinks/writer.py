"""The engine of all outputs: a thread with a bounded queue, outages that end by themselves, and counts of losses."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from edgekit.device.sink import Sink
from edgekit.device.sinks.context import Account, Shutdown, loss_reason
from edgekit.device.sinks.disk_reserve import DISK_RESERVE, DiskReserve
from edgekit.device.stages import Worker
from edgekit.errors import StorageError

if TYPE_CHECKING:
    from edgekit.device.detections import FrameResult
    from edgekit.device.frame import Frame

T = TypeVar("T")
_T_contra = TypeVar("_T_contra", contravariant=True)

END_OF_RUN = "end of the run"


class Target(Protocol[_T_contra]):
    """Where a `Writer` puts its items: a file, a folder or a receiver. A subclass may have nothing to close."""

    def write(self, items: Sequence[_T_contra]) -> int:
        """Store or send items; return the number of items that have become safe since the last call.

        Nothing can lose an item that is safe. A target that stores several items as one part, such as a video, returns
        0 until the part is complete, and then the number of its items.

        Raises:
            StorageError, OSError: None of these items is stored; a later attempt may succeed.
            LostError: None of these items is stored, and no other attempt would succeed.
        """
        ...

    def close(self) -> int:
        """Complete and close what is open; a later `write` opens it again. Returns and raises as `write`."""
        return 0


class Each(Target[T]):
    """Target that passes each item to a function, after which the item is safe."""

    def __init__(self, store: Callable[[T], object]) -> None:
        """Use `store`, which raises as `Target.write`."""
        self._store = store

    def write(self, items: Sequence[T]) -> int:
        """Store the items one after the other."""
        for item in items:
            self._store(item)
        return len(items)


class LostError(Exception):
    """Items are lost although the target works; `reason` is that of the account. An empty message is not reported."""

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class _DiskReserveError(StorageError):
    """The disk has less free space than the reserve of an output."""


@dataclass(frozen=True)
class WriterRules:
    """How a `Writer` treats its items.

    Attributes:
        what: The output in messages, such as "recording to 'door.mp4'".
        most: Largest sum of the weights of the items that wait.
        slow: Reason of the items that are dropped because too many wait.
        holds: Whether items wait during an outage, and the oldest are dropped if there are too many. Otherwise new ones
            are dropped in both cases.
        every_s: Time from the first item that waits until all are written together; 0: each is written by itself.
        early: Sum of the weights at which they are written before; 0: never.
        pauses_s: Pauses before further attempts after a failure; the last one repeats.
        attempts: Number of attempts, after which an item is dropped that waits in an outage; None: no limit.
        reserve: The disk reserve; None: the output has none.
    """

    what: str
    most: int
    slow: str
    holds: bool = False
    every_s: float = 0.0
    early: int = 0
    pauses_s: Sequence[float] = (10.0,)
    attempts: int | None = None
    reserve: DiskReserve | None = None


@dataclass(frozen=True, slots=True)
class _Item(Generic[T]):
    """An item with the arguments of `Writer.put`."""

    value: T
    count: int
    weight: int


class Writer(Sink, Generic[T]):
    """Passes items to a target, in order, and counts those that are written and dropped.

    With a thread (live sources) `put` never waits, and an outage of the target is reported once, survived, and its end
    reported once. Without a thread (recordings) `put` waits for the target, nothing is dropped, and an error ends the
    run. A sink is a subclass with a `write` that calls `put`, or uses a writer.

    Attributes:
        account: The counts.
    """

    def __init__(
        self,
        target: Target[T],
        rules: WriterRules,
        account: Account,
        shutdown: Shutdown,
        notify: Callable[[str], None],
        *,
        threaded: bool,
    ) -> None:
        """Prepare to write; the first item starts the thread."""
        self.account = account
        self._target = target
        self._rules = rules
        self._shutdown = shutdown
        self._notify = notify
        self._threaded = threaded
        self._thread: Worker | None = None
        # The items that wait for the thread, the sum of their weights, and when the thread must write them. The
        # condition guards these, and is notified when the thread must look at them.
        self._changed = threading.Condition()
        self._queue: deque[_Item[T]] = deque()
        self._weight = 0
        self._due_s = float("inf")
        self._ended = False
        # Counts of the items that the target has taken and that are not safe yet, in order.
        self._pending: deque[int] = deque()
        # The outage: number of failures, the time of the next attempt, and why items are lost ("" without an outage).
        self._failures = 0
        self._retry_s = float("-inf")
        self._outage = ""
        shutdown.add(self.end)

    def __exit__(self, *exception: object) -> None:
        """Write what waits, within the time limit of all outputs, and close the target. Count what is not written.

        Raises:
            StorageError: The target of a recording cannot be completed.
            Exception: The thread has failed.
        """
        self._shutdown.begin()
        try:
            if self._thread is not None:
                self._thread.join(self._shutdown.left_s)
            elif not self._threaded:  # with threads, and without an item, there is nothing to complete
                self._complete()
        finally:
            # Without an outage, what waits after the time limit was too much for the target.
            self.account.close(self._outage or self._rules.slow)
        self.check()

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Raise the exception of the thread, if there was one; subclasses call `put`."""
        del frame, result
        self.check()

    def put(self, value: T, *, count: int = 1, weight: int = 1) -> bool:
        """Write an item, or let it wait for the thread; return False if it is dropped.

        Args:
            value: The item.
            count: What it counts in the account.
            weight: What it counts of `WriterRules.most`.

        Raises:
            StorageError: The target of a recording cannot be written.
            Exception: The thread has failed.
        """
        self.check()
        item = _Item(value, count, weight)
        if not self._threaded:
            self.account.produce(count)
            self._store([item])
            return True
        with self._changed:
            if self._ended:
                return False
            self.account.produce(count)
            # `_queue`: an item alone is accepted, whatever its weight.
            if self._queue and not self._rules.holds and self._weight + weight > self._rules.most:
                self.account.drop(self._rules.slow, count)
                return False
            self._enqueue(item)
            if self._thread is None:
                self._thread = Worker(self._work, self.account.name)
                self._thread.start()
        return True

    def _enqueue(self, item: _Item[T]) -> None:
        """Append an item to the queue. The caller holds the condition."""
        if not self._queue:
            self._due_s = time.monotonic() + self._rules.every_s
            if self._rules.holds:  # items that wait in an outage are due at the next attempt
                self._due_s = max(self._due_s, self._retry_s)
        self._queue.append(item)
        self._weight += item.weight
        self._drop_oldest()
        # The thread sleeps without a limit while there is no item. Afterwards it wakes at `_due_s` by itself.
        if len(self._queue) == 1 or self._is_early():
            self._changed.notify()

    def lose(self, reason: str) -> None:
        """Count an item that the caller drops by itself."""
        self.account.produce()
        self.account.drop(reason)

    def end(self) -> None:
        """Let the thread end once it has written what waits; further items are ignored."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def check(self) -> None:
        """Raise the exception of the thread, if there was one."""
        if self._thread is not None:
            self._thread.check()

    def _work(self) -> None:
        """Write items until the end; this is the work of the thread."""
        while batch := self._take():
            self._store(batch)
        self._complete()

    def _take(self) -> list[_Item[T]]:
        """Wait for items that are due and return them: all that wait or, without `every_s`, one. [] is the end."""
        with self._changed:
            while not (self._ended or self._is_due()):
                # Without items, until `put` or `end` notifies.
                self._changed.wait(max(0.0, self._due_s - time.monotonic()) if self._queue else None)
            count = len(self._queue) if self._rules.every_s else min(1, len(self._queue))
            batch = [self._queue.popleft() for _ in range(count)]
            self._weight -= sum(item.weight for item in batch)
            return batch

    def _is_due(self) -> bool:
        """Return whether items wait whose time has come, or so many that they are written early."""
        return bool(self._queue) and (self._is_early() or time.monotonic() >= self._due_s)

    def _is_early(self) -> bool:
        """Return whether so many items wait that they are due before `_due_s`; never in an outage."""
        return 0 < self._rules.early <= self._weight and not self._outage

    def _store(self, batch: list[_Item[T]]) -> None:
        """Pass items to the target and count those that are safe; of an error, begin or continue an outage."""
        self._pending.extend(item.count for item in batch)
        is_before_next_attempt = time.monotonic() < self._retry_s  # only in an outage
        if is_before_next_attempt and not self._rules.holds:
            self._drop_pending(self._outage)  # `_fail` has closed the target
            return
        try:
            if self._threaded:
                self._check_reserve()
            safe = self._target.write([item.value for item in batch])
        except LostError as error:
            # The counts of the batch are the latest ones that are pending; they leave it.
            self.account.drop(error.reason, sum(self._pending.pop() for _ in batch))
            if str(error):  # without a message, the loss is counted only
                self._begin_outage(str(error), error.reason)
        except (StorageError, OSError) as error:
            if not self._threaded:
                self._abandon(loss_reason(error))
                raise
            self._fail(batch, error)
        except BaseException as error:
            self._abandon(loss_reason(error))
            raise
        else:
            # Only items that count end an outage. A frame that a clip writer keeps in memory counts 0: it does not show
            # that the disk works again.
            if self._settle(safe):
                self._end_outage()

    def _check_reserve(self) -> None:
        """Raise _DiskReserveError if the disk has too little free space."""
        shortage = "" if self._rules.reserve is None else self._rules.reserve.shortage()
        if shortage:
            raise _DiskReserveError(shortage)

    def _fail(self, batch: list[_Item[T]], error: Exception) -> None:
        """Close the target after an error; the items wait for the next attempt, or are dropped."""
        reason = DISK_RESERVE if isinstance(error, _DiskReserveError) else loss_reason(error)
        self._begin_outage(str(error), reason)
        pauses_s = self._rules.pauses_s
        self._retry_s = time.monotonic() + pauses_s[min(self._failures, len(pauses_s) - 1)]  # the last one repeats
        # Only a success resets this number: after the last attempt for an item, later items get one attempt each.
        self._failures += 1
        is_last = self._rules.attempts is not None and self._failures >= self._rules.attempts
        if self._rules.holds and not is_last:
            self._requeue(batch)  # these items are not pending afterwards
        self._abandon(self._outage)  # the items that are still pending are lost, unless closing makes them safe

    def _requeue(self, batch: list[_Item[T]]) -> None:
        """Let items wait again, before all others, for the next attempt; after the end of the run do nothing."""
        with self._changed:
            if self._ended:
                return
            for _ in batch:
                self._pending.pop()  # the counts of the batch are the latest ones
            self._queue.extendleft(reversed(batch))
            self._weight += sum(item.weight for item in batch)
            self._drop_oldest()
            self._due_s = self._retry_s

    def _drop_oldest(self) -> None:
        """Drop the oldest items while too many wait. The caller holds the condition."""
        while self._weight > self._rules.most and len(self._queue) > 1:
            oldest = self._queue.popleft()
            self._weight -= oldest.weight
            self.account.drop(self._outage or self._rules.slow, oldest.count)

    def _complete(self) -> None:
        """Close the target at the end; what is not safe then is lost."""
        try:
            self._settle(self._target.close())
        except (StorageError, OSError) as error:
            if not self._threaded:
                self._outage = loss_reason(error)  # the reason for `_drop_pending` below
                raise
            self._begin_outage(str(error), loss_reason(error))
        finally:
            self._drop_pending(self._outage or END_OF_RUN)

    def _abandon(self, reason: str) -> None:
        """Close the target, and count what is not safe as dropped."""
        with suppress(StorageError, OSError):
            self._settle(self._target.close())
        self._drop_pending(reason)

    def _drop_pending(self, reason: str) -> None:
        """Count the items that the target has taken and that are not safe as dropped."""
        self.account.drop(reason, sum(self._pending))
        self._pending.clear()

    def _settle(self, safe: int) -> int:
        """Count the oldest `safe` items that were pending as written; return what they count."""
        count = sum(self._pending.popleft() for _ in range(safe))
        self.account.write(count)
        return count

    def _begin_outage(self, message: str, reason: str) -> None:
        """Report an outage once, and keep the reason for which items are lost."""
        if not self._outage:
            self._notify(f"{message}: {self._rules.what} fails, the run continues")
        self._outage = reason

    def _end_outage(self) -> None:
        """Report the end of an outage, if there was one."""
        self._failures = 0
        self._retry_s = float("-inf")
        if self._outage:
            self._outage = ""
            lost = self.account.lost
            self._notify(f"{self._rules.what} resumed{f', {lost} lost so far' if lost else ''}")
