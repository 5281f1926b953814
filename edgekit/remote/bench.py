"""Benchmarks on boards over SSH: prepare each, send what is measured, run `edgekit bench` there, fetch its report.

Boards are worked on side by side, and what happens to one stays with it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec

from edgekit.errors import HostError, InputError
from edgekit.remote.hosts import Host
from edgekit.remote.parallel import HostResult, Listener, on_boards
from edgekit.remote.prepare import Ready, prepare, run_ready, use_installed
from edgekit.remote.probe import Probe, probe
from edgekit.remote.progress import PROGRESS_VARIABLE, read_progress
from edgekit.remote.ssh import Connection
from edgekit.remote.transfer import Upload, send
from edgekit.report.document import BenchmarkReport, HostOutcome
from edgekit.report.merging import merge
from edgekit.report.schema import MAX_BYTES, from_document, parse_document
from edgekit.text import one_line, printable

# A pause of --cool-down, at most an hour, and the reckoning of all intervals at the end come without a word.
_SILENCE_S = 7200


@dataclass(frozen=True)
class Job:
    """What every board is to do.

    `models` are the files by the names they have in reports. `options` go to the board's `edgekit bench` as they are;
    `files` are options whose value is a file that is sent. `camera` says that the board's picamera2 is wanted,
    `install` is False where the board's own edgekit is to be used, `extras` are what the models need beside
    `edgekit[device]`.
    """

    models: Mapping[str, Upload]
    options: tuple[str, ...] = ()
    files: Mapping[str, Upload] = field(default_factory=dict)
    camera: bool = False
    install: bool = True
    extras: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What one board gave: a report, or an error in one line.

    `overhead_s` is the time from the start until the board measured, `sent_bytes` what had to be sent.
    """

    host: Host
    report: BenchmarkReport | None = None
    error: str | None = None
    overhead_s: float | None = None
    sent_bytes: int = 0

    def as_host(self) -> HostOutcome:
        """Return the part that the report keeps, without the address, because reports are shown to other people."""
        return HostOutcome(
            label=self.host.label,
            error=self.error,
            overhead_s=None if self.overhead_s is None else round(self.overhead_s, 2),
            sent_bytes=self.sent_bytes,
        )


def bench_hosts(hosts: Sequence[Host], job: Job, listener: Listener, parallel: int) -> list[Outcome]:
    """Return what each board gave, in the order of `hosts`.

    Args:
        hosts: The boards.
        job: What they are to do.
        listener: Hears what happens.
        parallel: How many are worked on at a time.
    """
    done = on_boards(hosts, partial(bench_host, job=job, listener=listener), parallel)
    return [_outcome(one) for one in done]


def bench_host(connection: Connection, job: Job, listener: Listener) -> Outcome:
    """Return what one board gave; the connection is open.

    Raises:
        HostError: The board did not do its part.
    """
    host = connection.host
    started_s = time.monotonic()
    board = probe(connection)
    listener.say(host, board.describe())
    uploads = [*job.models.values(), *job.files.values()]
    ready, sent = _ready(connection, board, job, uploads, listener)
    for upload in uploads:
        sent += send(connection, board.store, upload, partial(listener.progress, host, f"sending {upload.path.name}"))
    names = {board.store.path(upload): name for name, upload in job.models.items()}
    files = [word for option, upload in job.files.items() for word in (option, board.store.path(upload))]
    hears = _Hears(host, listener)
    done = run_ready(
        connection,
        ready,
        ["bench", *names, *job.options, *files, "--json"],
        limit_bytes=MAX_BYTES,
        silence_s=_SILENCE_S,
        on_stderr_line=hears.line,
        environment=[f"{PROGRESS_VARIABLE}=1"],
    )
    if done.returncode != 0:
        last = "" if read_progress(done.complaint) else done.complaint
        ended = f"edgekit bench ended with {done.returncode}" + (f": {last}" if last else "")
        raise HostError(f"{host.label}: {hears.complaint or ended}")
    names |= {board.store.path(upload): upload.path.name for upload in job.files.values()}
    report = _read_report(done.stdout, names, host.label)
    overhead_s = None if hears.first_progress_s is None else hears.first_progress_s - started_s
    return Outcome(host, report, None, overhead_s, sent)


def merged_report(outcomes: Sequence[Outcome]) -> BenchmarkReport | None:
    """Return the reports of all boards as one document, with what it took under `hosts`; None if there is no report."""
    reports = {outcome.host.label: outcome.report for outcome in outcomes if outcome.report is not None}
    if not reports:
        return None
    report = merge(list(reports.values()), list(reports))
    return msgspec.structs.replace(report, hosts=tuple(outcome.as_host() for outcome in outcomes))


def _read_report(content: bytes, names: Mapping[str, str], label: str) -> BenchmarkReport:
    # What only means something on the board, its paths, is given the names that were given here.
    try:
        document = parse_document(content, "its report").as_document()
        report = from_document(_renamed(document, names), "its report")
    except InputError as error:
        raise HostError(f"{label}: {error}") from error
    if len(report.boards) != 1:
        raise HostError(f"{label}: its report has {len(report.boards)} boards, expected 1")
    return report


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return printable(names[value]) if value in names else value
    if isinstance(value, list | tuple):
        return [_renamed(item, names) for item in value]
    if isinstance(value, dict):
        return {key: _renamed(item, names) for key, item in value.items()}
    return value


def _outcome(done: HostResult[Outcome]) -> Outcome:
    outcome = done.result
    if outcome is None:
        return Outcome(done.host, error=done.error)
    overhead_s = None if outcome.overhead_s is None else outcome.overhead_s + done.connected_s
    return Outcome(done.host, outcome.report, None, overhead_s, outcome.sent_bytes)


def _ready(
    connection: Connection, board: Probe, job: Job, uploads: Sequence[Upload], listener: Listener
) -> tuple[Ready, int]:
    host = connection.host
    if not job.install:
        return use_installed(board, host.label), 0
    ready = prepare(
        connection,
        board,
        camera=job.camera,
        extras=job.extras,
        extra_bytes=sum(upload.size_bytes for upload in uploads if upload.name not in board.store.whole),
        tell=lambda text: listener.say(host, text),
        progress=lambda what, done, total: listener.progress(host, f"sending {what}", done, total),
    )
    return ready, ready.sent_bytes


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
