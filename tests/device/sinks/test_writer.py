"""The engine of all outputs: a slow or failing target never slows or ends a live run, and every loss is counted."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from edgekit.device.sinks.context import Account, Shutdown
from edgekit.device.sinks.writer import LostError, Writer, WriterRules
from edgekit.errors import InputError, StorageError
from tests.waiting import PATIENCE_S, wait_until

RULES = WriterRules(what="recording", most=3, slow="too slow", pauses_s=(0.0,))


class Store:
    """A target whose next writes raise `errors`, and that stalls while `open` is not set."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.errors: list[Exception] = []
        self.open = threading.Event()
        self.open.set()
        self.is_stalled = threading.Event()
        self.batches = 0
        self.closed = 0

    def write(self, items: Sequence[Any]) -> int:
        if not self.open.is_set():
            self.is_stalled.set()
            self.open.wait(PATIENCE_S)
        if self.errors:
            raise self.errors.pop(0)
        self.batches += 1
        self.items += items
        return len(items)

    def close(self) -> int:
        self.closed += 1
        return 0


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
    with new_writer(most=1000, every_s=3600.0) as writer:
        for number in range(100):
            writer.put(number)
        assert store.batches == 0
    assert (store.items, store.batches) == (list(range(100)), 1)


def test_a_full_batch_is_written_early(new_writer, store):
    with new_writer(most=1000, every_s=3600.0, early=10) as writer:
        writer.put(0, weight=5)
        writer.put(1, weight=5)
        wait_until(lambda: store.items == [0, 1])


def test_items_count_as_many_as_they_hold(new_writer, store):
    with new_writer(most=1000, every_s=3600.0) as writer:
        writer.put(0, count=3)
        writer.put(1, count=0)
    assert counts(writer)["written"] == 3
    assert store.items == [0, 1]


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
