"""Runs a function on several hosts in parallel; an error on one host does not affect the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from edgekit.errors import EdgekitError
from edgekit.remote.hosts import Host
from edgekit.remote.ssh import Connection
from edgekit.text import one_line

T = TypeVar("T")

# Error of the hosts that had not finished when Ctrl-C was pressed.
INTERRUPTED = "interrupted before it had finished"


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
        hosts: The hosts.
        work: Called once per host, from several threads.
        parallel: Maximum number of hosts at a time.
        finished: Called with each result as soon as it is there.
        failure: Returns the error of a host that has a result too; None if there is no error.
    """
    connections = [Connection(host) for host in hosts]
    results: dict[Future[HostResult[T]], HostResult[T]] = {}

    def keep(future: Future[HostResult[T]]) -> None:
        results[future] = future.result()
        finished(results[future])

    with ThreadPoolExecutor(parallel, thread_name_prefix="host") as pool:
        futures = [pool.submit(_run_on_host, connection, work, failure) for connection in connections]
        try:
            for future in as_completed(futures):
                keep(future)
            return [results[future] for future in futures]
        except BaseException as error:
            ended = [future for future in futures if future.done()]
            for future in futures:
                future.cancel()
            for connection in connections:
                connection.close()
            if not isinstance(error, KeyboardInterrupt):
                raise
    for future in set(futures) - set(results):
        # After Ctrl-C, an error is that of the closed connection.
        if future in ended or (not future.cancelled() and future.result().result is not None):
            keep(future)
    found = [results.get(future) or HostResult(hosts[index], error=INTERRUPTED) for index, future in enumerate(futures)]
    return [replace(done, interrupted=True) for done in found]


def _run_on_host(
    connection: Connection, work: Callable[[Connection], T], failure: Callable[[T], str | None]
) -> HostResult[T]:
    host = connection.host
    try:
        with connection:
            result = work(connection)
            return HostResult(host, result, failure(result))
    except EdgekitError as error:
        return HostResult(host, error=one_line(str(error)).removeprefix(f"{host.label}: "))
    except OSError as error:
        return HostResult(host, error=f"on this machine: {error.strerror or error}")
    except Exception as error:
        # An unexpected error on one board must not discard the results of the others.
        return HostResult(host, error=f"internal error: {type(error).__name__}: {one_line(str(error))}")
