"""Stages of a pipeline that work at the same time: iterators, each in a thread of its own, that meet at slots of one.

OpenCV and ONNX Runtime release Python's lock while they work, so stages of them really run side by side.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")

# A stage can hang in a driver for as long as that likes; leaving must not.
_JOIN_S = 2.0


class Stages:
    """The threads of one run, in a `with` block that ends them.

    Stages that keep `every_item` wait until theirs has been taken before they begin with the next one, so that at most
    one item waits between two stages. Otherwise they go on and put a newer item in its place: `dropped` counts, by
    stage, what nobody had taken.

    A stage that fails ends the run: its exception is raised where its items are consumed.
    """

    def __init__(self, threaded: bool, every_item: bool) -> None:
        """Without `threaded`, `ahead` returns the iterators as they are, and everything happens in one thread."""
        self.threaded = threaded
        self._every_item = every_item
        self._running: list[_Stage[Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for stage in self._running:
            stage.close()
        end_s = time.monotonic() + _JOIN_S
        for stage in self._running:
            stage.join(max(end_s - time.monotonic(), 0))

    @property
    def dropped(self) -> dict[str, int]:
        """Items that were replaced by newer ones before the stage after took them, by the stage that made them."""
        return {stage.name: stage.dropped for stage in self._running if not self._every_item}

    def ahead(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """Return `items`, made by a thread called `name` while the consumer works on those before."""
        if not self.threaded:
            return iter(items)
        stage: _Stage[T] = _Stage(name, iter(items), self._every_item)
        self._running.append(stage)
        return iter(stage)


class _Stage(Generic[T]):
    def __init__(self, name: str, items: Iterator[T], every_item: bool) -> None:
        self.name = name
        self.dropped = 0
        self._items = items
        self._every_item = every_item
        self._changed = threading.Condition()
        self._slot: list[T] = []
        self._failure: BaseException | None = None
        self._ended = False
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def __iter__(self) -> Iterator[T]:
        while True:
            with self._changed:
                while not (self._slot or self._ended or self._closed):
                    self._changed.wait()
                if self._closed:
                    return
                if not self._slot:
                    break
                item = self._slot.pop()
                self._changed.notify_all()
            yield item
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        try:
            while self._may_go_on():
                item = next(self._items, _END)
                if item is _END:
                    break
                self._put(item)  # type: ignore[arg-type]
        except BaseException as error:
            # Raised again where the items are consumed: a stage that dies must not look like one that has nothing.
            self._failure = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _may_go_on(self) -> bool:
        with self._changed:
            while self._every_item and self._slot and not self._closed:
                self._changed.wait()
            return not self._closed

    def _put(self, item: T) -> None:
        with self._changed:
            self.dropped += len(self._slot)
            self._slot = [item]
            self._changed.notify_all()


_END = object()
