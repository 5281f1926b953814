"""Boards worked on side by side: what happens to one stays with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from edgekit.errors import EdgekitError
from edgekit.remote.hosts import Host
from edgekit.remote.ssh import Connection
from edgekit.text import one_line

T = TypeVar("T")


class Listener(Protocol):
    """Hears what happens on the boards; called from several threads."""

    def say(self, host: Host, text: str) -> None:
        """Take a line about a board."""

    def progress(self, host: Host, what: str, done: float, total: float) -> None:
        """Take how far a board is with what it does now."""


@dataclass(frozen=True)
class HostResult(Generic[T]):
    """What the work on one board gave: a result, or an error in one line. `connected_s` is how long connecting took."""

    host: Host
    result: T | None = None
    error: str | None = None
    connected_s: float = 0.0


def on_boards(hosts: Sequence[Host], work: Callable[[Connection], T], parallel: int) -> list[HostResult[T]]:
    """Return what `work` gave with each board's open connection, in the order of `hosts`.

    Args:
        hosts: The boards.
        work: What is done with one; called from several threads.
        parallel: How many are worked on at a time.
    """
    connections = [Connection(host) for host in hosts]
    with ThreadPoolExecutor(parallel, thread_name_prefix="board") as pool:
        futures = [pool.submit(_one, connection, work) for connection in connections]
        try:
            return [future.result() for future in futures]
        except BaseException:
            # Ctrl-C: what waits is not begun, and what runs on the boards ends with its connection.
            for future in futures:
                future.cancel()
            for connection in connections:
                connection.close()
            raise


def _one(connection: Connection, work: Callable[[Connection], T]) -> HostResult[T]:
    host = connection.host
    started_s = time.monotonic()
    try:
        with connection:
            connected_s = time.monotonic() - started_s
            return HostResult(host, work(connection), connected_s=connected_s)
    except EdgekitError as error:
        return HostResult(host, error=one_line(str(error)).removeprefix(f"{host.label}: "))
    except OSError as error:
        return HostResult(host, error=f"on this machine: {error.strerror or error}")
    except Exception as error:
        # One board's surprise must not cost the others their results.
        return HostResult(host, error=f"internal error: {type(error).__name__}: {one_line(str(error))}")
