"""Benchmark on one board over SSH: prepare the board, send the files, run the job there, read its report."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec

from edgekit.errors import HostError, InputError
from edgekit.remote.hosts import Host
from edgekit.remote.parallel import HostReporter, HostResult
from edgekit.remote.payload import Upload
from edgekit.remote.prepare import prepare, run_job
from edgekit.remote.probe import probe
from edgekit.remote.program import read_job, receiver
from edgekit.remote.ssh import Connection, ConnectionLostError
from edgekit.report.document import BenchmarkReport, HostOutcome, from_document, merge
from edgekit.text import printable

# The latest report of a board, in edgekit's folder on it. It stays there after a lost connection or Ctrl-C.
_REPORT_NAME = "report.json"
KEPT_REPORT = f"~/.cache/edgekit/board/{_REPORT_NAME}"  # if the board has the default cache folder


@dataclass(frozen=True)
class Job:
    """Benchmark to run on each board.

    `models` maps names in the report to files. `options` are arguments of `edgekit.benchmark`, ready for JSON. `files`
    maps further arguments, such as `source`, to the file to send as their value. `install` is False to use the edgekit
    that is installed on the board. `extras` are required in addition to `edgekit-pi[device]`.
    """

    models: Mapping[str, Upload]
    options: Mapping[str, Any] = field(default_factory=dict)
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


def bench_host(connection: Connection, job: Job, reporter: HostReporter) -> HostReport:
    """Run a benchmark on the board of an open connection.

    Raises:
        HostError: The board cannot be prepared, the benchmark failed without a report, or its report is not valid.
    """
    host = connection.host
    board = probe(connection)
    reporter.message(host, board.describe())
    uploads = [*job.models.values(), *job.files.values()]
    command = prepare(connection, board, uploads, install=job.install, extras=job.extras, reporter=reporter)
    options = {"models": [board.stored_path(upload) for upload in job.models.values()], **job.options}
    # The user's name of each path on the board, for the report.
    names = {board.stored_path(upload): printable(name) for name, upload in job.models.items()}
    for argument, upload in job.files.items():
        options[argument] = board.stored_path(upload)
        names[options[argument]] = printable(upload.path.name)
    kept = f"{board.root}/{_REPORT_NAME}"  # the board can write it after the connection has ended
    connection.run(["rm", "-f", kept])  # the report of an earlier benchmark
    measurement_started_s: list[float] = []  # one value, when the first progress has arrived

    def progress(what: str, done: float, total: float) -> None:
        if not measurement_started_s:
            measurement_started_s.append(time.monotonic())
        reporter.progress(host, what, done, total)

    try:
        receive = receiver(partial(reporter.message, host), progress)
        done = run_job(connection, board, command, {"options": options, "names": names, "keep": kept}, receive)
    except ConnectionLostError as error:
        cure = f"look for its report on the board in '{kept}', or benchmark this board again"
        raise HostError(f"{error}; no measurement arrived: {cure}") from error
    answer = read_job(host.label, done)
    report = _checked_report(host.label, answer["result"], job)
    overhead_s = measurement_started_s[0] - connection.started_s if measurement_started_s else None
    return HostReport(report, overhead_s, command.sent_bytes, failure=answer.get("error"))


def _checked_report(label: str, document: Any, job: Job) -> BenchmarkReport:
    """Return the report of a board, after a check that it has one board and all models of the job."""
    try:
        report = from_document(document, "its report")
    except InputError as error:
        raise HostError(f"{label}: {error}") from error
    measured = {model.sha256 for board in report.boards for model in board.models}
    # A model that was damaged on the board's disk has another SHA-256; 'edgekit host clean' deletes the file.
    missing = [name for name, upload in job.models.items() if upload.sha256 not in measured]
    if missing or len(report.boards) != 1:  # `merged_report` needs one board per report
        cure = "'edgekit host clean', then benchmark the board again"
        raise HostError(f"{label}: its report has no measurement of {', '.join(missing) or 'one board'}: {cure}")
    return report


def merged_report(results: Sequence[HostResult[HostReport]]) -> BenchmarkReport | None:
    """Return the reports of all boards as one, with each board's outcome under `hosts`; None if there is no report."""
    reports = {done.host.label: done.result.report for done in results if done.result is not None}
    if not reports:
        return None
    report = merge(list(reports.values()), [[label] for label in reports])  # each report has one board
    return msgspec.structs.replace(report, hosts=tuple(map(_host_outcome, results)))


def _host_outcome(done: HostResult[HostReport]) -> HostOutcome:
    """Return a host's outcome for the report, without its address, because reports are shown to other people."""
    overhead_s = done.result.overhead_s if done.result else None
    return HostOutcome(
        label=done.host.label,
        error=None if done.error is None else _without_address(done.error, done.host),
        overhead_s=None if overhead_s is None else round(overhead_s, 2),
        sent_bytes=done.result.sent_bytes if done.result else 0,
    )


def _without_address(text: str, host: Host) -> str:
    """Return a text with the host's label instead of its address, and the name of the key instead of its path."""
    host_name = host.address.rpartition("@")[2]
    # The address before the host name, because it ends in the host name.
    replacements = {host.address: host.label, host_name: host.label}
    if host.identity:
        replacements[str(host.identity)] = host.identity.name
    for private, public in replacements.items():
        # Whole words only, because an address can be as short as "a": not in "b.a", "b@a", "b-a" or "/b/a", but before
        # the dot that ends a sentence.
        whole_word = rf"(?<![\w.@/-]){re.escape(private)}(?![\w/-])"
        text = re.sub(whole_word, public.replace("\\", r"\\"), text)  # `re.sub` reads backslashes as escapes
    return text
