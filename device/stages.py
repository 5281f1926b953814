"""Threads of a run: stages that are iterators connected by slots for one item, and threads whose failure ends the run.

OpenCV and ONNX Runtime release Python's lock while they compute, so that stages that call them run in parallel.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, Self, TypeVar


class Worker(threading.Thread):
    """A thread that calls `work`; `check` raises its exception in another thread.

    The command line ends the process without waiting for such a thread, which a driver may block.
    """

    def __init__(self, work: Callable[[], object], name: str) -> None:
        super().__init__(name=f"edgekit {name}", daemon=True)
        self._work = work
        self._failure: BaseException | None = None

    def run(self) -> None:
        """Call `work` and keep its exception."""
        try:
            self._work()
        except BaseException as error:
            self._failure = error

    def check(self) -> None:
        """Raise the exception of `work`, if there was one."""
        if self._failure is not None:
            raise self._failure


T = TypeVar("T")

# A stage can hang in a driver for ever; `Stages.__exit__` must not.
_JOIN_S = 0.5


class Stages:
    """The threads of one run, which end with the `with` block.

    With `every_item` a stage waits until its item has been taken before it starts the next one, so that at most one
    item waits between two stages. Without `every_item` a stage continues and replaces the waiting item by a newer one;
    `dropped` counts the replaced items per stage.

    The exception of a stage is raised where its items are consumed.
    """

    def __init__(self, threaded: bool, every_item: bool) -> None:
        """Without `threaded`, `prefetch` returns its iterator unchanged and everything runs in one thread."""
        self.threaded = threaded
        self._every_item = every_item
        self._running: list[_Stage[Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for stage in self._running:
            stage.close()
        end_s = time.monotonic() + _JOIN_S  # for all stages together
        for stage in self._running:
            stage.join(max(end_s - time.monotonic(), 0))

    @property
    def dropped(self) -> dict[str, int]:
        """The number of items of each stage, by name, that newer ones replaced before the next stage took them."""
        return {stage.name: stage.dropped for stage in self._running if not self._every_item}

    def prefetch(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """Return `items`, computed in a thread called `name` while the consumer processes the previous item."""
        if not self.threaded:
            return iter(items)
        stage: _Stage[T] = _Stage(name, iter(items), self._every_item)
        self._running.append(stage)
        return iter(stage)


class _Stage(Generic[T]):
    """Computes items in a thread, which puts them into a slot for one item; iteration takes them out of it."""

    def __init__(self, name: str, items: Iterator[T], every_item: bool) -> None:
        """Start the thread; `every_item` as of `Stages`."""
        self.name = name
        self.dropped = 0
        self._items = items
        self._every_item = every_item
        # Guards the following, and is notified of each change.
        self._changed = threading.Condition()
        self._slot: list[T] = []  # empty, or one item
        self._ended = False  # no item follows
        self._closed = False  # nobody wants another item
        self._thread = Worker(self._produce, name)
        self._thread.start()

    def close(self) -> None:
        """End the thread before its next item, and the iteration."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def join(self, timeout_s: float) -> None:
        """Wait until the thread has ended, at most `timeout_s`."""
        # The garbage collector closes a forgotten run in any thread: also in this one, which cannot join itself.
        if self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def __iter__(self) -> Iterator[T]:
        """Take the items out of the slot; after the last one, raise the exception of the thread, if there was one."""
        while True:
            with self._changed:
                while not (self._slot or self._ended or self._closed):
                    self._changed.wait()
                if self._closed:
                    return
                if not self._slot:  # the thread has ended, and its last item was taken
                    break
                item = self._slot.pop()
                self._changed.notify_all()
            yield item
        self._thread.join()
        self._thread.check()

    def _produce(self) -> None:
        """Compute the items and put each into the slot; this is the work of the thread."""
        try:
            while self._wait_for_slot():
                item = next(self._items, _END)
                if item is _END:
                    break
                self._put(item)  # type: ignore[arg-type]
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _wait_for_slot(self) -> bool:
        """Wait until an item may be put into the slot; return False if the stage was closed."""
        with self._changed:
            while self._every_item and self._slot and not self._closed:
                self._changed.wait()
            return not self._closed

    def _put(self, item: T) -> None:
        """Put an item into the slot, and count a waiting item that it replaces as dropped."""
        with self._changed:
            self.dropped += len(self._slot)
            self._slot = [item]
            self._changed.notify_all()


_END = object()


class StageTimer:
    """Measures the stages of one frame: each `mark` ends the stage that began at the previous mark.

    A stage that is marked more than once has the sum of its times.

        timer = StageTimer()
        faces = detector.detect(image_bgr)
        timer.mark("detect")
        print(timer.ms)  # {'detect': 11.4}
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._last_s = clock()
        self.ms: dict[str, float] = {}

    def mark(self, stage: str) -> None:
        """End `stage` now and add its duration in milliseconds to `ms[stage]`."""
        now_s = self._clock()
        self.ms[stage] = self.ms.get(stage, 0.0) + (now_s - self._last_s) * 1e3
        self._last_s = now_s
