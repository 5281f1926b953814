"""The engine of all outputs: a slow or failing target never slows or ends a live run, and every loss is counted."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest

from edgekit.device.sinks.context import Account, Shutdown
from edgekit.device.sinks.disk_reserve import VIDEO, DiskReserve
from edgekit.device.sinks.writer import LostError, Writer, WriterRules
from edgekit.errors import InputError, StorageError
from tests.waiting import PATIENCE_S, wait_until

RULES = WriterRules(what="recording", most=3, slow="too slow", pauses_s=(0.0,))


class Store:
    """A target whose next writes raise `errors`, and that stalls while `open` is not set.

    While `is_late`, items are safe only by a later call. The next call of `close` raises `close_error`.
    """

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.errors: list[Exception] = []
        self.open = threading.Event()
        self.open.set()
        self.is_stalled = threading.Event()
        self.batches = 0
        self.closed = 0
        self.is_late = False
        self.close_error: Exception | None = None
        self._unsafe = 0

    def write(self, items: Sequence[Any]) -> int:
        if not self.open.is_set():
            self.is_stalled.set()
            self.open.wait(PATIENCE_S)
        if self.errors:
            raise self.errors.pop(0)
        self.batches += 1
        self.items += items
        self._unsafe += len(items)
        return 0 if self.is_late else self._made_safe()

    def close(self) -> int:
        self.closed += 1
        if self.close_error is not None:
            raise self.close_error
        return self._made_safe()

    def _made_safe(self) -> int:
        safe, self._unsafe = self._unsafe, 0
        return safe


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store()
    yield made
    made.open.set()


@pytest.fixture
def new_writer(store, notices) -> Callable[..., Writer[int]]:
    def make(*, threaded: bool = True, end_s: float = PATIENCE_S, **rules: Any) -> Writer[int]:
        account, shutdown = Account("store"), Shutdown(end_s)
        return Writer(store, replace(RULES, **rules), account, shutdown, notices.append, threaded=threaded)

    return make


def counts(writer: Writer[int]) -> dict[str, Any]:
    return writer.account.as_document()


def fail() -> StorageError:
    error = StorageError("no space")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    return error


def test_items_arrive_in_order_and_are_counted(new_writer, store, notices):
    with new_writer(most=1000) as writer:
        assert all(writer.put(number) for number in range(100))
    assert store.items == list(range(100))
    assert counts(writer) == {"produced": 100, "written": 100, "dropped": {}, "waiting": 0}
    assert (store.closed, notices) == (1, [])


def test_a_target_that_stalls_delays_nothing_and_new_items_are_dropped(new_writer, store):
    with new_writer() as writer:
        store.open.clear()
        assert writer.put(0)
        assert store.is_stalled.wait(PATIENCE_S)
        assert [writer.put(number) for number in range(1, 6)] == [True, True, True, False, False]
        store.open.set()
    assert store.items == [0, 1, 2, 3]
    assert counts(writer)["dropped"] == {"too slow": 2}


def test_items_that_wait_in_an_outage_are_written_later_and_the_oldest_are_dropped(new_writer, store, notices):
    store.errors = [fail()]
    with new_writer(holds=True, pauses_s=(0.2,)) as writer:
        writer.put(0)
        wait_until(lambda: notices)
        for number in range(1, 6):
            writer.put(number)
        wait_until(lambda: store.items == [3, 4, 5])
    assert counts(writer) == {"produced": 6, "written": 3, "dropped": {"disk full": 3}, "waiting": 0}
    assert len(notices) == 2, "begin and end of the outage"


def test_items_that_do_not_wait_are_dropped_in_an_outage(new_writer, store, notices):
    store.errors = [fail()]
    with new_writer(pauses_s=(3600.0,)) as writer:
        for number in range(3):
            writer.put(number)
            wait_until(lambda number=number: counts(writer)["dropped"] == {"disk full": number + 1})
    assert (store.items, len(notices)) == ([], 1)


def test_an_item_is_dropped_after_the_last_attempt(new_writer, store):
    store.errors = [fail(), fail(), fail()]
    with new_writer(holds=True, attempts=3) as writer:
        writer.put(0)
        writer.put(1)
        wait_until(lambda: store.items == [1])
    assert counts(writer) == {"produced": 2, "written": 1, "dropped": {"disk full": 1}, "waiting": 0}


def test_a_rejected_item_is_dropped_at_once_and_reported_once(new_writer, store, notices):
    store.errors = [LostError("rejected", "status 401"), LostError("rejected", "status 401")]
    with new_writer(holds=True) as writer:
        for number in range(3):
            writer.put(number)
    assert (store.items, counts(writer)["dropped"], len(notices)) == ([2], {"rejected": 2}, 2)


def test_many_items_are_written_at_once(new_writer, store):
    store.open.clear()
    with new_writer(most=1000, every_s=3600.0) as writer:
        for number in range(100):
            writer.put(number)
        assert not store.is_stalled.wait(0.1), "nothing is written before"
        store.open.set()
    assert (store.items, store.batches) == (list(range(100)), 1)


def test_a_full_batch_is_written_early(new_writer, store):
    with new_writer(most=1000, every_s=3600.0, early=10) as writer:
        writer.put(0, weight=5)
        writer.put(1, weight=5)
        wait_until(lambda: store.items == [0, 1])


def test_a_batch_that_is_not_full_is_written_when_its_time_has_come(new_writer, store):
    with new_writer(most=1000, every_s=0.01, early=10) as writer:
        for number in range(2):
            writer.put(number)
            wait_until(lambda number=number: store.items == [*range(number + 1)])


def test_items_count_as_many_as_they_hold(new_writer, store):
    with new_writer(most=1000, every_s=3600.0) as writer:
        writer.put(0, count=3)
        writer.put(1, count=0)
    assert counts(writer)["written"] == 3
    assert store.items == [0, 1]


def test_items_that_are_safe_later_count_as_written_then(new_writer, store):
    store.is_late = True
    with new_writer() as writer:
        writer.put(0, count=2)
        writer.put(1)
        wait_until(lambda: store.items == [0, 1])
        assert counts(writer)["written"] == 0
        store.is_late = False
        writer.put(2)
        wait_until(lambda: counts(writer)["written"] == 4)
        store.is_late = True
        writer.put(3)
    assert counts(writer) == {"produced": 5, "written": 5, "dropped": {}, "waiting": 0}


def test_after_a_failure_the_target_is_closed_and_only_what_is_not_safe_then_is_lost(new_writer, store):
    store.is_late = True
    with new_writer() as writer:
        writer.put(0)
        wait_until(lambda: store.items == [0])
        store.errors = [fail()]
        writer.put(1)
        wait_until(lambda: counts(writer)["dropped"])
        assert store.closed == 1
    assert counts(writer) == {"produced": 2, "written": 1, "dropped": {"disk full": 1}, "waiting": 0}


@pytest.mark.parametrize("threaded", [True, False])
def test_what_cannot_be_completed_at_the_end_is_lost(new_writer, store, notices, threaded):
    store.is_late, store.close_error = True, fail()
    writer = new_writer(threaded=threaded)
    writer.put(0)
    with nullcontext() if threaded else pytest.raises(StorageError):
        writer.__exit__()
    assert counts(writer) == {"produced": 1, "written": 0, "dropped": {"disk full": 1}, "waiting": 0}
    assert len(notices) == threaded


def test_the_pauses_after_failures_grow_until_one_attempt_succeeds(new_writer, store):
    with new_writer(holds=True, pauses_s=(0.0, 3600.0)) as writer:
        for number in range(2):
            store.errors = [fail()]
            writer.put(number)
            wait_until(lambda number=number: number in store.items)
        store.errors = [fail(), fail()]
        writer.put(2)
        wait_until(lambda: not store.errors)
        writer.put(3)
        assert counts(writer)["waiting"] == 2
    assert store.items == [0, 1, 2, 3], "at the end nothing waits for the next attempt"


def test_without_the_disk_reserve_an_output_pauses(new_writer, store, notices, small_disk, fill):
    fill(small_disk)
    with new_writer(reserve=DiskReserve(small_disk, VIDEO, None)) as writer:
        writer.put(0)
        wait_until(lambda: counts(writer)["dropped"] == {"disk reserve": 1})
        (small_disk / "ballast").unlink()
        wait_until(lambda: writer.put(1) and store.items)
    assert len(notices) == 2


def test_what_a_caller_or_a_target_drops_without_a_message_is_counted_only(new_writer, store, notices):
    store.errors = [LostError("rejected")]
    with new_writer() as writer:
        writer.lose("encoder too slow")
        writer.put(0)
    assert (counts(writer)["dropped"], notices) == ({"encoder too slow": 1, "rejected": 1}, [])


def test_all_outputs_end_within_one_time_limit(notices):
    shutdown, stores = Shutdown(0.2), [Store(), Store(), Store()]
    writers = [Writer(each, RULES, Account("store"), shutdown, notices.append, threaded=True) for each in stores]
    for each, writer in zip(stores, writers, strict=True):
        each.open.clear()
        writer.put(0)
        assert each.is_stalled.wait(PATIENCE_S)
    writers[0].__exit__()
    assert shutdown.left_s == 0
    for writer in writers[1:]:
        writer.__exit__()  # would wait for 60 s, if it waited for the target
    assert [counts(writer)["dropped"] for writer in writers] == [{"too slow": 1}] * 3
    for each in stores:
        each.open.set()


def test_an_item_after_the_end_is_ignored(new_writer, store):
    writer = new_writer()
    writer.put(0)
    writer.__exit__()
    assert not writer.put(1)
    assert (store.items, counts(writer)["produced"]) == ([0], 1)


def test_a_failure_that_is_no_outage_ends_the_run(new_writer, store):
    store.errors = [InputError("no encoder")]
    writer = new_writer()
    writer.put(0)
    with pytest.raises(InputError):
        wait_until(lambda: writer.check())
    with pytest.raises(InputError):
        writer.__exit__()
    assert counts(writer)["waiting"] == 0


def test_a_recording_is_written_at_once_and_an_error_ends_the_run(new_writer, store):
    with new_writer(threaded=False) as writer:
        for number in range(10):
            writer.put(number)
            assert store.items[-1] == number
        store.errors = [fail()]
        with pytest.raises(StorageError):
            writer.put(10)
    assert counts(writer) == {"produced": 11, "written": 10, "dropped": {"disk full": 1}, "waiting": 0}
