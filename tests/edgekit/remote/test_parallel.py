"""Ctrl-C while several hosts are in use, with connections that reach no host."""

from __future__ import annotations

import signal
import threading
from typing import Any

import pytest

from edgekit.errors import HostError
from edgekit.remote import parallel
from edgekit.remote.hosts import Host, parse_host
from edgekit.remote.parallel import INTERRUPTED, HostResult, run_on_hosts


class NoConnection:
    """A connection to nothing."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.closed = threading.Event()

    def __enter__(self) -> NoConnection:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def close(self) -> None:
        self.closed.set()


@pytest.fixture(autouse=True)
def no_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "Connection", NoConnection)


def test_after_ctrl_c_every_host_that_finished_has_its_result() -> None:
    begun = threading.Barrier(3)

    def work(connection: Any) -> str:
        begun.wait(60)
        if connection.host.label == "first":
            return "done"
        connection.closed.wait(60)
        if connection.host.label == "cut":
            raise HostError("cut: connection lost")
        return "done late"

    finished = []

    def interrupt_at_first(done: HostResult[str]) -> None:
        finished.append(done.host.label)
        if done.host.label == "first":
            signal.raise_signal(signal.SIGINT)

    hosts = [parse_host(name) for name in ("first", "late", "cut")]
    results = run_on_hosts(hosts, work, 3, interrupt_at_first)
    assert [(done.host.label, done.result, done.error) for done in results] == [
        ("first", "done", None),
        ("late", "done late", None),
        ("cut", None, INTERRUPTED),
    ]
    assert all(done.interrupted for done in results)
    assert finished == ["first", "late"]


def test_a_ctrl_c_that_does_not_end_the_wait_for_the_hosts_is_noticed() -> None:
    # A signal just before the wait does not end it. A signal that another thread receives does not end it either.
    def work(connection: Any) -> str:
        signal.raise_signal(signal.SIGINT)
        if not connection.closed.wait(60):
            return "Ctrl-C was not noticed"
        raise HostError("one: connection lost")

    (result,) = run_on_hosts([parse_host("one")], work, 1)
    assert result.error == INTERRUPTED
