"""Runs a function on several hosts in parallel; an error on one host does not affect the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from edgekit.errors import EdgekitError
from edgekit.remote.hosts import Host
from edgekit.remote.ssh import Connection
from edgekit.text import one_line

T = TypeVar("T")


class HostReporter(Protocol):
    """Receives messages and progress of hosts; called from several threads."""

    def message(self, host: Host, text: str) -> None:
        """Receive one line about a host."""

    def progress(self, host: Host, what: str, done: float, total: float) -> None:
        """Receive how much of the current step of a host is done."""


@dataclass(frozen=True)
class HostResult(Generic[T]):
    """Result of one host, or an error in one line, or both: `tried` is False for a host that was skipped."""

    host: Host
    result: T | None = None
    error: str | None = None
    tried: bool = True


def run_on_hosts(
    hosts: Sequence[Host],
    work: Callable[[Connection], T],
    parallel: int,
    finished: Callable[[HostResult[T]], None] = lambda _: None,
) -> list[HostResult[T]]:
    """Call `work` with an open connection to each host and return the results in the order of `hosts`.

    Args:
        hosts: The hosts.
        work: Called once per host, from several threads.
        parallel: Maximum number of hosts at a time.
        finished: Called with each result as soon as it is there.
    """
    connections = [Connection(host) for host in hosts]
    with ThreadPoolExecutor(parallel, thread_name_prefix="host") as pool:
        futures = [pool.submit(_run_on_host, connection, work) for connection in connections]
        try:
            for future in as_completed(futures):
                finished(future.result())
            return [future.result() for future in futures]
        except BaseException:
            # Ctrl-C: hosts that wait are not started, and commands on boards end with their connection.
            for future in futures:
                future.cancel()
            for connection in connections:
                connection.close()
            raise


def _run_on_host(connection: Connection, work: Callable[[Connection], T]) -> HostResult[T]:
    host = connection.host
    try:
        with connection:
            return HostResult(host, work(connection))
    except EdgekitError as error:
        return HostResult(host, error=one_line(str(error)).removeprefix(f"{host.label}: "))
    except OSError as error:
        return HostResult(host, error=f"on this machine: {error.strerror or error}")
    except Exception as error:
        # An unexpected error on one board must not discard the results of the others.
        return HostResult(host, error=f"internal error: {type(error).__name__}: {one_line(str(error))}")
