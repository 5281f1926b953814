"""`edgekit bench --host`: the same options, measured on boards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.boards.hosts import BoardListener, HostChoice, raise_failures, yunet_upload
from edgekit.cli.output import Output, one_line
from edgekit.errors import InputError

if TYPE_CHECKING:
    from edgekit.cli.render.reports import ReportFiles
    from edgekit.remote.transfer import Upload

# Options of `bench` that are this machine's affair; all others go to the boards as they were given.
_LOCAL = {
    "models", "output", "html_path", "markdown_path", "csv_path", "as_json", "debug", "quiet",
    "host", "inventory", "port", "identity", "ssh_option", "parallel", "install", "source_uri", "detector_model",
}  # fmt: skip
_NOT_OVER_SSH = {"power_file": "a power meter's readings are taken on the machine that measures"}


def bench_on_hosts(out: Output, chosen: HostChoice, models: Sequence[str], files: ReportFiles) -> None:
    """Measure on boards what the current command's options ask for, and report on all of them in one document.

    Raises:
        HostError: A board failed; the reports of the others have been written by then.
    """
    from contextlib import ExitStack

    from edgekit.remote.bench import bench_hosts, merged_report
    from edgekit.report.terminal import report_view

    job = _job(out, chosen, models)
    with ExitStack() as stack:
        write = files.open(stack)
        with BoardListener(out) as listener:
            outcomes = bench_hosts(chosen.hosts, job, listener, chosen.parallel)
        failures = [(done.host.label, done.error) for done in outcomes if done.error is not None]
        document = merged_report(outcomes)
        if document is None:
            # Raised in here, so that files of these names stay as they are.
            raise_failures(failures, len(outcomes))
            return
        write(document)
        out.console.print(report_view(document))
        out.result(document.as_document())
    for outcome in outcomes:
        if outcome.overhead_s is not None:
            sent = f"{outcome.sent_bytes / 1e6:.1f} MB sent" if outcome.sent_bytes else "nothing sent"
            out.say(f"{outcome.host.label}: {outcome.overhead_s:.1f} s until it measured, {sent}")
    for path in (files.json_path, files.html_path, files.markdown_path, files.csv_path):
        if path is not None:
            out.say(f"report: {path}")
    raise_failures(failures, len(outcomes))


def _job(out: Output, chosen: HostChoice, models: Sequence[str]) -> Any:
    from edgekit.model_store import DEVICE_SUFFIXES, engine_extras, resolve_model
    from edgekit.remote.bench import Job
    from edgekit.remote.transfer import pack

    context = click.get_current_context()
    given = {
        name: context.params[name]
        for name in context.params
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
    }
    for name, reason in _NOT_OVER_SSH.items():
        if name in given:
            raise click.UsageError(f"--{name.replace('_', '-')} does not go with --host: {reason}")
    if len(set(models)) < len(models):
        raise InputError("a model is given twice")
    named = {name: pack(resolve_model(name, DEVICE_SUFFIXES), "model") for name in models}
    if len({upload.name for upload in named.values()}) < len(named):
        raise InputError("two of the models are the same file")
    options: list[str] = []
    for parameter in context.command.params:
        if parameter.name in given and parameter.name not in _LOCAL:
            options += _words(parameter, given[parameter.name])
    files: dict[str, Upload] = {}
    if context.params.get("pipeline", True):
        options += _source(context.params["source_uri"], files)
    camera = context.params.get("camera") is not None
    if camera or context.params.get("pipeline", True):
        _detector(out, context.params, files)
    extras = engine_extras(upload.path for upload in named.values())
    return Job(named, tuple(options), files, camera=camera, install=chosen.install, extras=extras)


def _words(parameter: click.Parameter, value: Any) -> list[str]:
    option = parameter.opts[0]
    if isinstance(value, bool):
        return [option if value else parameter.secondary_opts[0]]
    if isinstance(value, Mapping):
        return [word for key, text in value.items() for word in (option, f"{key}={text}")]
    return [option, ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]


def _source(uri: str, files: dict[str, Upload]) -> list[str]:
    from edgekit.remote.transfer import pack

    path = Path(uri)
    if path.is_file():
        files["--source"] = pack(path, "source")
        return []
    if path.is_dir() or not (uri == "demo" or "://" in uri):
        raise InputError(f"source '{one_line(uri)}' is no file here: boards are sent one video or picture")
    return ["--source", uri]


def _detector(out: Output, params: Mapping[str, Any], files: dict[str, Upload]) -> None:
    from edgekit.remote.transfer import pack

    path = params["detector_model"]
    if path is not None:
        files["--detector-model"] = pack(path, "detector model")
    elif params["detector_name"] == "yunet" and (upload := yunet_upload(out)) is not None:
        files["--detector-model"] = upload
