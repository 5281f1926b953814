"""Stages in threads: the order of items, dropped items, exceptions, and the end of the threads."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator

import pytest

from edgekit.device.stages import Stages
from tests.waiting import PATIENCE_S, wait_until


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    wait_until(lambda: set(threading.enumerate()) <= before)


@pytest.mark.parametrize("threaded", [False, True])
def test_every_item_arrives_in_order(threaded: bool) -> None:
    with Stages(threaded, every_item=True) as stages:
        doubled = stages.prefetch("double", (2 * item for item in stages.prefetch("count", range(500))))
        assert list(doubled) == list(range(0, 1000, 2))
        assert stages.dropped == {}


def test_at_most_one_item_waits_and_the_next_is_not_begun() -> None:
    begun = []

    def items() -> Iterator[int]:
        for item in range(10):
            begun.append(item)
            yield item

    with Stages(threaded=True, every_item=True) as stages:
        made = stages.prefetch("make", items())
        assert next(made) == 0
        wait_until(lambda: len(begun) == 2)
        time.sleep(0.05)
        assert begun == [0, 1]


def test_newer_items_take_the_place_of_older_ones_and_are_counted() -> None:
    taken, more = threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        yield 0
        assert taken.wait(PATIENCE_S)
        yield from (1, 2, 3, 4)
        more.set()
        assert taken.wait(PATIENCE_S)

    with Stages(threaded=True, every_item=False) as stages:
        made = stages.prefetch("make", items())
        assert next(made) == 0
        taken.set()
        assert more.wait(PATIENCE_S)
        assert list(made) == [4]
        assert stages.dropped == {"make": 3}


def test_an_exception_of_a_stage_ends_the_run_with_this_exception() -> None:
    def broken(items: Iterator[int]) -> Iterator[int]:
        for item in items:
            if item == 3:
                raise ZeroDivisionError("bug")
            yield item

    seen = []
    with Stages(threaded=True, every_item=True) as stages:
        last = stages.prefetch("last", stages.prefetch("middle", broken(stages.prefetch("first", itertools.count()))))
        with pytest.raises(ZeroDivisionError, match="bug"):
            seen.extend(last)
    assert seen == [0, 1, 2]

    # The fixture `no_thread_is_left` checks that the threads end.
