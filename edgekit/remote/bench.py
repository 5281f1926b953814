"""Benchmark on one board over SSH: prepare the board, send the files, run `edgekit bench` there, read its report."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter

import msgspec

from edgekit.errors import ERROR_PREFIX, HostError, InputError
from edgekit.remote.file_names import names_setting
from edgekit.remote.hosts import Host
from edgekit.remote.parallel import HostReporter, HostResult, run_on_hosts
from edgekit.remote.prepare import prepare_and_send, run_edgekit
from edgekit.remote.probe import probe
from edgekit.remote.progress import PROGRESS_VARIABLE, read_progress
from edgekit.remote.responses import unexpected
from edgekit.remote.ssh import CommandResult, Connection, ConnectionLostError
from edgekit.remote.transfer import Upload
from edgekit.report.document import MAX_ERROR_CHARS, BenchmarkReport, HostOutcome
from edgekit.report.merging import merge
from edgekit.report.schema import MAX_BYTES, parse_document
from edgekit.text import one_line, printable

# During a pause of --cool-down (an hour at most) and while intervals are computed at the end, nothing is printed.
_SILENCE_S = 7200
_WARNING = "edgekit: warning: "


@dataclass(frozen=True)
class Job:
    """Benchmark to run on each board.

    `models` maps names in the report to files. `options` are passed to the board's `edgekit bench` unchanged. `files`
    maps options, such as --source, to the file to send as their value. `install` is False to use the edgekit that is
    installed on the board. `extras` are required in addition to `edgekit-pi[device]`.
    """

    models: Mapping[str, Upload]
    options: tuple[str, ...] = ()
    files: Mapping[str, Upload] = field(default_factory=dict)
    install: bool = True
    extras: tuple[str, ...] = ()


@dataclass(frozen=True)
class HostReport:
    """Benchmark report of one board, validated.

    `overhead_s` is the time from connecting to the start of the measurement, `sent_bytes` the bytes that were sent. If
    the benchmark failed, `failure` is the reason, and the report has the measurements before.
    """

    report: BenchmarkReport
    overhead_s: float | None
    sent_bytes: int
    failure: str | None = None


def bench_hosts(
    hosts: Sequence[Host],
    job: Job,
    parallel: int,
    reporter: HostReporter,
    finished: Callable[[HostResult[HostReport]], None],
) -> list[HostResult[HostReport]]:
    """Run a benchmark on several boards and return the results in the order of `hosts`.

    A board whose benchmark failed after some measurements has a result and an error. Ctrl-C: see `run_on_hosts`.

    Args:
        hosts: The boards.
        job: The benchmark.
        parallel: Maximum number of boards at a time.
        reporter: Receives messages and progress.
        finished: Called with the result of each board as soon as it is there.
    """
    work = partial(bench_host, job=job, reporter=reporter)
    return run_on_hosts(hosts, work, parallel, finished, attrgetter("failure"))


def bench_host(connection: Connection, job: Job, reporter: HostReporter) -> HostReport:
    """Run a benchmark on the board of an open connection.

    Raises:
        HostError: The board cannot be prepared, the benchmark failed without a report, or its report is not valid.
    """
    host = connection.host
    board = probe(connection)
    reporter.message(host, board.describe())
    uploads = [*job.models.values(), *job.files.values()]
    command = prepare_and_send(
        connection, board, uploads, install=job.install, camera=None, extras=job.extras, reporter=reporter
    )
    models = {board.store.path(upload): printable(name) for name, upload in job.models.items()}
    files = {option: board.store.path(upload) for option, upload in job.files.items()}
    file_names = {files[option]: printable(upload.path.name) for option, upload in job.files.items()}
    arguments = ["bench", *models, *job.options, *(word for pair in files.items() for word in pair), "--json"]
    kept = f"{board.root}/report.json" if (board.free_bytes or 0) > MAX_BYTES else None
    if kept is not None:  # the board can write it after the connection has ended
        connection.run(["rm", "-f", kept])
        arguments += ["--output", kept]
    messages = _BoardMessages(host, reporter)
    try:
        done = run_edgekit(
            connection,
            command,
            arguments,
            limit_bytes=MAX_BYTES,
            silence_s=_SILENCE_S,
            on_stderr_line=messages.add,
            variables=[f"{PROGRESS_VARIABLE}=1", names_setting(file_names | models)],
        )
    except ConnectionLostError as error:
        place = "" if kept is None else f"look for its report on the board in '{kept}', or "
        raise HostError(f"{error}; no measurement arrived: {place}benchmark this board again") from error
    failure = _failure(done, messages.error)
    try:
        report = _read_report(done.stdout, host.label)
    except HostError:
        if failure is None:
            raise
        raise HostError(f"{host.label}: {failure}") from None
    measured = {cell.model for cell in report.boards[0].cells if cell.kind == "net"}  # in every benchmark
    if failure is None and (missing := [name for name in models.values() if name not in measured]):
        cure = "" if job.install else ": its edgekit may be too old: update it, or leave out --no-install"
        failure = f"its report has no measurement of '{missing[0]}'{cure}"
    first_s = messages.first_progress_s
    overhead_s = None if first_s is None else first_s - connection.started_s
    return HostReport(report, overhead_s, command.sent_bytes, failure)


def merged_report(results: Sequence[HostResult[HostReport]]) -> BenchmarkReport | None:
    """Return the reports of all boards as one, with each board's outcome under `hosts`; None if there is no report."""
    reports = {done.host.label: done.result.report for done in results if done.result is not None}
    if not reports:
        return None
    report = merge(list(reports.values()), [[label] for label in reports])
    return msgspec.structs.replace(report, hosts=tuple(map(_host_outcome, results)))


def _failure(done: CommandResult, error: str | None) -> str | None:
    """Return why the board's benchmark failed: the `error` it printed, or its exit code; None for exit code 0."""
    if done.returncode == 0:
        return None
    if error is not None:
        return error
    last_line = "" if read_progress(done.last_error_line) else done.last_error_line
    return f"edgekit bench ended with exit code {done.returncode}" + (f": {last_line}" if last_line else "")


def _host_outcome(done: HostResult[HostReport]) -> HostOutcome:
    """Return a host's outcome for the report, without its address, because reports are shown to other people."""
    overhead_s = done.result.overhead_s if done.result else None
    return HostOutcome(
        label=done.host.label,
        error=done.error and _without_address(done.error, done.host)[:MAX_ERROR_CHARS],
        overhead_s=None if overhead_s is None else round(overhead_s, 2),
        sent_bytes=done.result.sent_bytes if done.result else 0,
    )


def _without_address(text: str, host: Host) -> str:
    names = {host.address: host.label, host.address.rpartition("@")[2]: host.label}
    names |= {str(host.identity): host.identity.name} if host.identity else {}
    for name, shown in names.items():
        # Whole words only: an address can be as short as "a".
        text = re.sub(rf"(?<![\w.@/-]){re.escape(name)}(?![\w/-])", shown.replace("\\", r"\\"), text)
    return text


def _read_report(content: bytes, label: str) -> BenchmarkReport:
    try:
        report = parse_document(content, "its report")
    except InputError as error:
        raise HostError(f"{label}: {error}{unexpected(content)}") from error
    if len(report.boards) != 1:
        raise HostError(f"{label}: its report has {len(report.boards)} boards, expected 1")
    return report


class _BoardMessages:
    """Reads stderr of the board's edgekit: reports progress and warnings, and keeps the last error."""

    def __init__(self, host: Host, reporter: HostReporter) -> None:
        self._host = host
        self._reporter = reporter
        self.error: str | None = None
        self.first_progress_s: float | None = None

    def add(self, line: str) -> None:
        progress = read_progress(line)
        if progress is not None:
            if self.first_progress_s is None:
                self.first_progress_s = time.monotonic()
            self._reporter.progress(self._host, progress.what, progress.done, progress.total)
            return
        text = one_line(line)[:500]
        if text.startswith(ERROR_PREFIX):
            self.error = text.removeprefix(ERROR_PREFIX)
        elif text.startswith(_WARNING):
            self._reporter.message(self._host, text.removeprefix("edgekit: "))
