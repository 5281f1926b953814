"""Benchmarks on boards over SSH: prepare each, send what is to be measured, run `edgekit bench` there, fetch its report.

Boards are worked on side by side, and what happens to one stays with it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from edgekit.errors import EdgekitError, HostError
from edgekit.remote.hosts import Host
from edgekit.remote.prepare import Ready, prepare, run_ready, use_installed
from edgekit.remote.probe import Probe, probe
from edgekit.remote.progress import PROGRESS_VARIABLE, read_progress
from edgekit.remote.ssh import Connection
from edgekit.remote.transfer import Parcel, send
from edgekit.remote.untrusted import read_report
from edgekit.text import one_line

HOSTS_SCHEMA = "edgekit.bench-hosts/1.0"
_REPORT_LIMIT_BYTES = 64 << 20


class Listener(Protocol):
    """Hears what happens on the boards; called from several threads."""

    def say(self, host: Host, text: str) -> None:
        """Take a line about a board."""

    def progress(self, host: Host, what: str, done: float, total: float) -> None:
        """Take how far a board is with what it does now."""


@dataclass(frozen=True)
class Job:
    """What every board is to do.

    `models` are the files by the names they have in reports. `options` go to the board's `edgekit bench` as they are;
    `files` are options whose value is a file that is sent. `camera` says that the board's picamera2 is wanted,
    `install` is False where the board's own edgekit is to be used.
    """

    models: Mapping[str, Parcel]
    options: tuple[str, ...] = ()
    files: Mapping[str, Parcel] = field(default_factory=dict)
    camera: bool = False
    install: bool = True


@dataclass(frozen=True)
class Outcome:
    """What one board gave: a report, or an error in one line.

    `overhead_s` is the time from the start until the board measured, `sent_bytes` what had to be sent.
    """

    host: Host
    report: dict[str, Any] | None = None
    error: str | None = None
    overhead_s: float | None = None
    sent_bytes: int = 0

    def as_document(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {
            "host": self.host.label,
            "address": self.host.address,
            "error": self.error,
            "overhead_s": None if self.overhead_s is None else round(self.overhead_s, 2),
            "sent_bytes": self.sent_bytes,
            "report": self.report,
        }


def bench_hosts(hosts: Sequence[Host], job: Job, listener: Listener, parallel: int) -> list[Outcome]:
    """Return what each board gave, in the order of `hosts`.

    Args:
        hosts: The boards.
        job: What they are to do.
        listener: Hears what happens.
        parallel: How many are worked on at a time.
    """
    connections = [Connection(host) for host in hosts]
    with ThreadPoolExecutor(parallel, thread_name_prefix="board") as pool:
        futures = [pool.submit(_outcome, connection, job, listener) for connection in connections]
        try:
            return [future.result() for future in futures]
        except BaseException:
            # Ctrl-C: what waits is not begun, and what runs on the boards ends with its connection.
            for future in futures:
                future.cancel()
            for connection in connections:
                connection.close()
            raise


def bench_host(connection: Connection, job: Job, listener: Listener) -> Outcome:
    """Return what one board gave; the connection is open.

    Raises:
        HostError: The board did not do its part.
    """
    host = connection.host
    started_s = time.monotonic()
    board = probe(connection)
    listener.say(host, board.describe())
    parcels = [*job.models.values(), *job.files.values()]
    ready, sent = _ready(connection, board, job, parcels, listener)
    for parcel in parcels:
        sent += send(
            connection,
            board.store,
            parcel,
            lambda done, total, parcel=parcel: listener.progress(host, f"sending {parcel.path.name}", done, total),
        )
    names = {board.store.path(parcel): name for name, parcel in job.models.items()}
    files = [word for option, parcel in job.files.items() for word in (option, board.store.path(parcel))]
    hears = _Hears(host, listener)
    done = run_ready(
        connection,
        ready,
        ["bench", *names, *job.options, *files, "--json"],
        limit_bytes=_REPORT_LIMIT_BYTES,
        on_stderr_line=hears.line,
        environment=[f"{PROGRESS_VARIABLE}=1"],
    )
    if done.returncode != 0:
        raise HostError(f"{host.label}: {hears.complaint or f'edgekit bench ended with {done.returncode}'}")
    local = {path: str(parcel.path) for path, parcel in _sent_files(board, job).items()}
    report = read_report(done.stdout, names | local, host.label)
    overhead_s = None if hears.first_progress_s is None else hears.first_progress_s - started_s
    return Outcome(host, report, None, overhead_s, sent)


def hosts_document(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return what several boards gave as one document."""
    return {
        "schema": HOSTS_SCHEMA,
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "hosts": [outcome.as_document() for outcome in outcomes],
    }


def _outcome(connection: Connection, job: Job, listener: Listener) -> Outcome:
    host = connection.host
    started_s = time.monotonic()
    try:
        with connection:
            connected_s = time.monotonic() - started_s
            outcome = bench_host(connection, job, listener)
    except EdgekitError as error:
        return Outcome(host, error=one_line(str(error)).removeprefix(f"{host.label}: "))
    except OSError as error:
        return Outcome(host, error=f"on this machine: {error.strerror or error}")
    except Exception as error:
        # One board's surprise must not cost the others their results.
        return Outcome(host, error=f"internal error: {type(error).__name__}: {one_line(str(error))}")
    overhead_s = None if outcome.overhead_s is None else outcome.overhead_s + connected_s
    return Outcome(host, outcome.report, None, overhead_s, outcome.sent_bytes)


def _ready(
    connection: Connection, board: Probe, job: Job, parcels: Sequence[Parcel], listener: Listener
) -> tuple[Ready, int]:
    host = connection.host
    if not job.install:
        return use_installed(board, host.label), 0
    ready = prepare(
        connection,
        board,
        camera=job.camera,
        extra_bytes=sum(parcel.size_bytes for parcel in parcels if parcel.name not in board.store.whole),
        tell=lambda text: listener.say(host, text),
        progress=lambda what, done, total: listener.progress(host, f"sending {what}", done, total),
    )
    return ready, ready.sent_bytes


def _sent_files(board: Probe, job: Job) -> dict[str, Parcel]:
    return {board.store.path(parcel): parcel for parcel in job.files.values()}


class _Hears:
    """What the board's edgekit says on stderr: progress for the listener, and its last complaint."""

    def __init__(self, host: Host, listener: Listener) -> None:
        self._host = host
        self._listener = listener
        self.complaint = ""
        self.first_progress_s: float | None = None

    def line(self, text: str) -> None:
        told = read_progress(text)
        if told is not None:
            if self.first_progress_s is None:
                self.first_progress_s = time.monotonic()
            self._listener.progress(self._host, told.what, told.done, told.total)
            return
        shown = one_line(text)[:500]
        if shown.startswith(_ERROR):
            self.complaint = shown.removeprefix(_ERROR)
        elif shown.startswith(_WARNING):
            self._listener.say(self._host, shown.removeprefix("edgekit: "))


_ERROR, _WARNING = "edgekit: error: ", "edgekit: warning: "
