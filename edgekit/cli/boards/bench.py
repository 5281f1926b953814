"""`edgekit bench --host`: runs the benchmark on boards over SSH and merges their reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.boards.hosts import BoardReporter, HostChoice, needs_detector, raise_failures, yunet_upload
from edgekit.cli.output import Output, one_line
from edgekit.errors import HostError, InputError

if TYPE_CHECKING:
    from edgekit.cli.render.reports import ReportFiles
    from edgekit.remote.bench import Job
    from edgekit.remote.transfer import Upload
    from edgekit.report.document import BenchmarkReport

# Options of `bench` for this machine; all others are passed to the boards unchanged.
_LOCAL = {
    "models", "output", "html_path", "markdown_path", "csv_path", "as_json", "debug", "quiet",
    "formats", "data", "split", "target", "host", "inventory", "only", "port", "identity",
    "ssh_option", "parallel", "install", "source_uri", "detector_model",
}  # fmt: skip
_NOT_OVER_SSH = {"power_file": "the readings of a power meter are read on the machine that measures"}


def bench_on_hosts(out: Output, chosen: HostChoice, models: Sequence[str], files: ReportFiles) -> None:
    """Run the current `bench` command on boards and write one report on all of them.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed; the report on the finished boards is written first.
        HostError: A board failed; the report on the others is written first.
    """
    from contextlib import ExitStack

    from edgekit.remote.bench import bench_hosts, merged_report
    from edgekit.report.terminal import report_view

    job = _job(out, chosen, models)
    document = None
    try:
        with ExitStack() as stack:
            write = files.open(stack)
            with BoardReporter(out, len(chosen.hosts)) as reporter:
                results = bench_hosts(chosen.hosts, job, chosen.parallel, reporter, reporter.finished)
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
    if any(done.interrupted for done in results):
        out.warn(f"interrupted: the report has {len(document.boards)} of {len(results)} boards")
    raise_failures(results)


def bench_files_on_hosts(out: Output, chosen: HostChoice, files: Mapping[str, Path]) -> BenchmarkReport:
    """Measure files by name on boards, without the pipeline, and return one report; failed boards are in its `hosts`.

    Raises:
        HostError: All boards failed.
        KeyboardInterrupt: Ctrl-C was pressed, and no board was measured.
    """
    from edgekit.model_store import engine_extras
    from edgekit.remote.bench import Job, bench_hosts, merged_report
    from edgekit.remote.transfer import pack

    uploads = {name: pack(path, "model") for name, path in files.items()}
    options = (*_given_options(), "--no-pipeline")
    job = Job(uploads, options, install=chosen.install, extras=engine_extras(files.values()))
    with BoardReporter(out, len(chosen.hosts)) as reporter:
        results = bench_hosts(chosen.hosts, job, chosen.parallel, reporter, reporter.finished)
    # A table of formats needs all of them.
    report = merged_report([replace(done, result=None) if done.error else done for done in results])
    if report is None:
        raise_failures(results)
        raise HostError("no board was measured")
    return report


def _job(out: Output, chosen: HostChoice, models: Sequence[str]) -> Job:
    from edgekit.model_store import DEVICE_SUFFIXES, engine_extras, resolve_model
    from edgekit.remote.bench import Job
    from edgekit.remote.transfer import pack

    params = click.get_current_context().params
    options = _given_options()
    if len(set(models)) < len(models):
        raise InputError("a model is given twice: give each model once")
    uploads = {name: pack(resolve_model(name, DEVICE_SUFFIXES), "model") for name in models}
    if len({upload.name for upload in uploads.values()}) < len(uploads):
        raise InputError("two of the models are the same file: give each model once")
    files: dict[str, Upload] = {}
    if params["pipeline"]:
        options += _source(params["source_uri"], files)
        _add_detector(out, params, files, [upload.path for upload in uploads.values()])
    extras = engine_extras(upload.path for upload in uploads.values())
    return Job(uploads, tuple(options), files, install=chosen.install, extras=extras)


def _given_options() -> list[str]:
    """Return the options of the current command that are passed to the boards, as words of a command line."""
    context = click.get_current_context()
    words: list[str] = []
    for parameter in context.command.params:
        name = parameter.name or ""
        if context.get_parameter_source(name) is click.core.ParameterSource.DEFAULT:
            continue
        if name in _NOT_OVER_SSH:
            raise click.UsageError(f"{parameter.opts[0]} cannot be used with --host: {_NOT_OVER_SSH[name]}")
        if name not in _LOCAL:
            words += _words(parameter, context.params[name])
    return words


def _words(parameter: click.Parameter, value: Any) -> list[str]:
    option = parameter.opts[0]
    if isinstance(value, bool):
        return [option if value else parameter.secondary_opts[0]]
    if isinstance(value, Mapping):
        return [word for key, text in value.items() for word in (option, f"{key}={text}")]
    return [option, ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]


def _source(uri: str, files: dict[str, Upload]) -> list[str]:
    """Return the options that pass the source `uri` to the boards; for a file, add it to `files` and return none."""
    from edgekit.remote.transfer import pack

    path = Path(uri)
    if path.is_file():
        files["--source"] = pack(path, "source")
        return []
    if path.is_dir() or not (uri == "demo" or "://" in uri):
        raise InputError(f"source '{one_line(uri)}' is not a file: give one video or image to send to the boards")
    return ["--source", uri]


def _add_detector(out: Output, params: Mapping[str, Any], files: dict[str, Upload], models: Sequence[Path]) -> None:
    from edgekit.remote.transfer import pack

    path = params["detector_model"]
    if path is not None:
        files["--detector-model"] = pack(path, "detector model")
    elif params["detector_name"] in (None, "yunet") and any(map(needs_detector, models)):
        upload = yunet_upload(out)
        files |= {} if upload is None else {"--detector-model": upload}
