"""`edgekit bench --host`: runs the benchmark on boards over SSH and merges their reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.cli.boards.hosts import BoardReporter, needs_detector, raise_failures, yunet_upload
from edgekit.cli.output import Output, one_line
from edgekit.device.benchmark.options import BenchmarkOptions
from edgekit.errors import HostError, InputError
from edgekit.options import defaults

if TYPE_CHECKING:
    from edgekit.cli.render.reports import ReportOptions
    from edgekit.remote.bench import Job
    from edgekit.remote.host_options import InstallingHostOptions
    from edgekit.remote.hosts import Host
    from edgekit.remote.transfer import Upload
    from edgekit.report.document import BenchmarkReport

# What is sent to the boards beside the files.
_SENT = (
    *("kinds", "threads", "seconds", "processes", "batch", "source", "detector"),
    *("cool_down_s", "allow_throttled", "notes"),
)


def bench_on_hosts(
    out: Output, options: BenchmarkOptions, files: ReportOptions, boards: InstallingHostOptions, hosts: Sequence[Host]
) -> None:
    """Run the current `bench` command on boards and write one report on all of them.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed; the report on the finished boards is written first.
        HostError: A board failed; the report on the others is written first.
    """
    from contextlib import ExitStack

    from edgekit.remote.bench import bench_hosts, merged_report
    from edgekit.report.terminal import report_view
    from edgekit.report.view import frame_rates, with_short_names

    job = _job(out, options, hosts, install=not boards.no_install)
    document = None
    try:
        with ExitStack() as stack:
            write = files.open(stack)
            with BoardReporter(out, len(hosts)) as reporter:
                results = bench_hosts(hosts, job, boards.parallel, reporter, reporter.finished)
            document = merged_report(results)
            if document is None:
                # Raised within the stack, so that existing report files are kept.
                raise_failures(results)
                return
            write(document)
    finally:
        if document is not None:
            out.show(*report_view(document))
            out.result(document.as_document())
    for host in document.hosts or ():
        if host.overhead_s is not None:
            sent = f"{host.sent_bytes / 1e6:.1f} MB sent" if host.sent_bytes else "nothing sent"
            out.say(f"{host.label}: {host.overhead_s:.1f} s until the measurement started, {sent}")
    for path in files.paths:
        out.say(f"report: {path}")
    out.show(*frame_rates(with_short_names(document)))
    if any(done.interrupted for done in results):
        out.warn(f"interrupted: the report has {len(document.boards)} of {len(results)} boards")
    raise_failures(results)


def bench_files_on_hosts(
    out: Output,
    options: BenchmarkOptions,
    boards: InstallingHostOptions,
    hosts: Sequence[Host],
    files: Mapping[str, Path],
) -> BenchmarkReport:
    """Measure files by name on boards and return one report; failed boards are in its `hosts`.

    Raises:
        HostError: All boards failed.
        KeyboardInterrupt: Ctrl-C was pressed, and no board was measured.
    """
    from edgekit.model_store import engine_extras
    from edgekit.remote.bench import Job, bench_hosts, merged_report
    from edgekit.remote.transfer import pack

    uploads = {name: pack(path, "model") for name, path in files.items()}
    job = Job(uploads, _sent(options), install=not boards.no_install, extras=engine_extras(files.values()))
    with BoardReporter(out, len(hosts)) as reporter:
        results = bench_hosts(hosts, job, boards.parallel, reporter, reporter.finished)
    # A table of formats needs all of them.
    report = merged_report([replace(done, result=None) if done.error else done for done in results])
    if report is None:
        raise_failures(results)
        raise HostError("no board was measured")
    return report


def _job(out: Output, options: BenchmarkOptions, hosts: Sequence[Host], install: bool) -> Job:
    from edgekit.model_store import DEVICE_SUFFIXES, engine_extras, resolve_model
    from edgekit.remote.bench import Job
    from edgekit.remote.transfer import pack
    from edgekit.report.schema import check_fits

    assert isinstance(options.models, tuple)
    check_fits(names=(*options.models, options.source), boards=len(hosts))
    if len(set(options.models)) < len(options.models):
        raise InputError("a model is given twice: give each model once")
    uploads = {name: pack(resolve_model(name, DEVICE_SUFFIXES), "model") for name in options.models}
    if len({upload.name for upload in uploads.values()}) < len(uploads):
        raise InputError("two of the models are the same file: give each model once")
    files: dict[str, Upload] = {}
    if options.kinds is None:
        files = _files(out, options, [upload.path for upload in uploads.values()])
    extras = engine_extras(upload.path for upload in uploads.values())
    return Job(uploads, _sent(options), files, install=install, extras=extras)


def _sent(options: BenchmarkOptions) -> dict[str, object]:
    """Return the options that differ from their defaults, ready for JSON; files are sent separately."""
    usual = defaults(BenchmarkOptions)
    values = {name: getattr(options, name) for name in _SENT}
    return {name: value for name, value in values.items() if value != usual[name]}


def _files(out: Output, options: BenchmarkOptions, models: Sequence[Path]) -> dict[str, Upload]:
    """Return the files to send as source and as detector.

    Raises:
        InputError: The source is a folder, or the file of an option cannot be read.
    """
    from edgekit.model_store import ONNX_SUFFIX
    from edgekit.remote.transfer import pack

    files: dict[str, Upload] = {}
    path, uri = Path(options.source), options.source
    if path.is_file():
        files["source"] = pack(path, "source")
    elif path.is_dir() or not (uri == "demo" or "://" in uri):
        raise InputError(f"source '{one_line(uri)}' is not a file: give one video or image to send to the boards")
    name = None if options.detector is None else str(options.detector)
    if name is not None and name.endswith(ONNX_SUFFIX):
        files["detector"] = pack(Path(name), "detector model")
    elif name in (None, "yunet") and any(map(needs_detector, models)) and (upload := yunet_upload(out)):
        files["detector"] = upload
    return files
