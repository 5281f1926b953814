"""Runs a function on several hosts in parallel; an error on one host does not affect the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from edgekit.errors import EdgekitError
from edgekit.remote.hosts import Host
from edgekit.remote.ssh import Connection
from edgekit.text import one_line

T = TypeVar("T")

# Error of the hosts that had not finished when Ctrl-C was pressed.
INTERRUPTED = "interrupted before it had finished"

# A wait without a limit misses a Ctrl-C that comes just before the wait begins.
_LONGEST_WAIT_S = 0.5


class HostReporter(Protocol):
    """Receives messages and progress of hosts; called from several threads."""

    def message(self, host: Host, text: str) -> None:
        """Receive one line about a host."""

    def progress(self, host: Host, what: str, done: float, total: float) -> None:
        """Receive how much of the current step of a host is done."""


@dataclass(frozen=True)
class HostResult(Generic[T]):
    """Result of one host, or an error in one line, or both.

    `tried` is False for a host that was skipped. `interrupted` is True in all results of a call that Ctrl-C has ended.
    """

    host: Host
    result: T | None = None
    error: str | None = None
    tried: bool = True
    interrupted: bool = False


def run_on_hosts(
    hosts: Sequence[Host],
    work: Callable[[Connection], T],
    parallel: int,
    finished: Callable[[HostResult[T]], None] = lambda _: None,
    failure: Callable[[T], str | None] = lambda _: None,
) -> list[HostResult[T]]:
    """Call `work` with an open connection to each host and return the results in the order of `hosts`.

    After Ctrl-C, waiting hosts are not started, and the connections to the others are closed. The results of the hosts
    that finished are returned. The other hosts have the error `INTERRUPTED`.

    Args:
        hosts: The hosts; each has its own label.
        work: Called once per host, from several threads.
        parallel: Maximum number of hosts at a time.
        finished: Called with each result as soon as it is there.
        failure: Called with each result of `work`; returns the error that the result contains, or None.
    """
    connections = [Connection(host) for host in hosts]
    futures: set[Future[HostResult[T]]] = set()
    results: dict[Host, HostResult[T]] = {}
    with ThreadPoolExecutor(parallel, thread_name_prefix="host") as pool:
        try:
            for connection in connections:
                futures.add(pool.submit(_run_on_host, connection, work, failure))
            running = futures
            while running:  # `wait` ends early, so that Ctrl-C is not missed, and returns new sets
                done, running = wait(running, _LONGEST_WAIT_S, FIRST_COMPLETED)
                for future in done:
                    results[future.result().host] = future.result()
                    finished(future.result())
            return [results[host] for host in hosts]
        except BaseException as error:
            # Ctrl-C, or an error of `finished`. Closing the connections ends the threads, for which the pool waits.
            ended_before = {future for future in futures if future.done()}
            for future in futures:
                future.cancel()
            for connection in connections:
                connection.close()
            if not isinstance(error, KeyboardInterrupt):
                raise
    # Only after Ctrl-C: add the results of the hosts that ended meanwhile.
    for future in futures:
        if future.cancelled() or future.result().host in results:  # never started, or reported already
            continue
        # The error of a host that ended before Ctrl-C is kept. A later error is that of the closed connection.
        if future in ended_before or future.result().result is not None:
            results[future.result().host] = future.result()
            finished(future.result())
    found = [results.get(host) or HostResult(host, error=INTERRUPTED) for host in hosts]
    return [replace(result, interrupted=True) for result in found]


def _run_on_host(
    connection: Connection, work: Callable[[Connection], T], failure: Callable[[T], str | None]
) -> HostResult[T]:
    """Return the result of `work` with an open connection, or its error in one line; `failure`: see `run_on_hosts`."""
    host = connection.host
    try:
        with connection:
            result = work(connection)
            return HostResult(host, result, error=failure(result))
    except EdgekitError as error:
        return HostResult(host, error=one_line(str(error)).removeprefix(f"{host.label}: "))
    except OSError as error:
        return HostResult(host, error=f"on this machine: {error.strerror or error}")
    except Exception as error:
        # An unexpected error on one board must not discard the results of the others.
        return HostResult(host, error=f"internal error: {type(error).__name__}: {one_line(str(error))}")
