"""Options of the commands that work on boards over SSH, and what those commands share."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.common import Output, one_line
from edgekit.errors import HostError, InputError

if TYPE_CHECKING:
    from edgekit.cli.report_options import ReportFiles
    from edgekit.remote.hosts import Host
    from edgekit.remote.transfer import Parcel

_MAX_PARALLEL = 64


@dataclass(frozen=True)
class HostChoice:
    """The boards the user named, none of them where the command is for this machine, and how to go about them."""

    hosts: tuple[Host, ...]
    parallel: int
    install: bool = True


def host_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add --host, --inventory, --port, --identity, --ssh-option and --parallel, and pass a `HostChoice` as `chosen`."""

    @click.option("--host", "host", multiple=True, metavar="[USER@]HOST", help="A board, by SSH; may be repeated.")
    @click.option(
        "--inventory", type=click.Path(path_type=Path), metavar="FILE.toml", help="Boards, as [[host]] tables."
    )
    @click.option("--port", type=click.IntRange(1, 65_535), metavar="N", help="SSH port; default: as ssh knows it.")
    @click.option("--identity", type=click.Path(path_type=Path), metavar="FILE", help="Private key for SSH.")
    @click.option("--ssh-option", multiple=True, metavar="ARG", help="An argument for ssh, such as -F…; repeatable.")
    @click.option(
        "--parallel",
        type=click.IntRange(1, _MAX_PARALLEL),
        default=4,
        show_default=True,
        metavar="N",
        help="Boards at a time.",
    )
    @functools.wraps(function)
    def wrapper(
        *args: Any,
        host: tuple[str, ...],
        inventory: Path | None,
        port: int | None,
        identity: Path | None,
        ssh_option: tuple[str, ...],
        parallel: int,
        **kwargs: Any,
    ) -> None:
        hosts: list[Host] = []
        if host or inventory is not None:
            from edgekit.remote.hosts import check_different, parse_host, read_inventory

            hosts = [parse_host(text, port=port, identity=identity, ssh_options=ssh_option) for text in host]
            if inventory is not None:
                hosts += read_inventory(inventory, port=port, identity=identity, ssh_options=ssh_option)
            check_different(hosts)
        elif port is not None or identity is not None or ssh_option:
            raise click.UsageError("--port, --identity and --ssh-option belong to --host or --inventory")
        install = kwargs.pop("install", True)
        if not hosts and not install:
            raise click.UsageError("--no-install belongs to --host or --inventory")
        function(*args, chosen=HostChoice(tuple(hosts), parallel, install), **kwargs)

    return wrapper


def no_install_option(function: Callable[..., None]) -> Callable[..., None]:
    """Add --no-install; stands below `host_options`."""
    return click.option(
        "--no-install", "install", flag_value=False, default=True, help="Use the edgekit that the board has."
    )(function)


def require_hosts(chosen: HostChoice) -> tuple[Host, ...]:
    """Return the boards of a command that has nothing to do without one."""
    if not chosen.hosts:
        raise click.UsageError("no board is named: write --host USER@HOST or --inventory FILE.toml")
    return chosen.hosts


def raise_failures(failures: Sequence[tuple[str, str]], total: int) -> None:
    """Raise one error for all boards that failed, given as (label, reason); none: nothing happens.

    Raises:
        HostError: Some failed.
    """
    if not failures:
        return
    reasons = "; ".join(f"{label}: {reason}" for label, reason in failures)
    raise HostError(reasons if total == 1 else f"{len(failures)} of {total} boards failed: {reasons}")


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
    files.check()
    with ExitStack() as stack:
        write = files.open(stack)
        with BoardLines(out) as listener:
            outcomes = bench_hosts(chosen.hosts, job, listener, chosen.parallel)
        failures = [(done.host.label, done.error) for done in outcomes if done.error is not None]
        document = merged_report(outcomes)
        if document is None:
            # Raised in here, so that files of these names stay as they are.
            raise_failures(failures, len(outcomes))
            return
        write(document)
        out.console.print(report_view(document))
        out.result(document)
    for outcome in outcomes:
        if outcome.overhead_s is not None:
            sent = f"{outcome.sent_bytes / 1e6:.1f} MB sent" if outcome.sent_bytes else "nothing sent"
            out.say(f"{outcome.host.label}: {outcome.overhead_s:.1f} s until it measured, {sent}")
    for path in (files.json_path, files.html_path, files.markdown_path, files.csv_path):
        if path is not None:
            out.say(f"report: {path}")
    raise_failures(failures, len(outcomes))


def _job(out: Output, chosen: HostChoice, models: Sequence[str]) -> Any:
    from edgekit.modelfiles import ONNX_SUFFIX, resolve_model
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
    named = {name: pack(resolve_model(name, (ONNX_SUFFIX,)), "model") for name in models}
    if len({parcel.name for parcel in named.values()}) < len(named):
        raise InputError("two of the models are the same file")
    options: list[str] = []
    for parameter in context.command.params:
        if parameter.name in given and parameter.name not in _LOCAL:
            options += _words(parameter, given[parameter.name])
    files: dict[str, Parcel] = {}
    if context.params.get("pipeline", True):
        options += _source(context.params["source_uri"], files)
    camera = context.params.get("camera") is not None
    if camera or context.params.get("pipeline", True):
        _detector(out, context.params, files)
    return Job(named, tuple(options), files, camera=camera, install=chosen.install)


def _words(parameter: click.Parameter, value: Any) -> list[str]:
    option = parameter.opts[0]
    if isinstance(value, bool):
        return [option if value else parameter.secondary_opts[0]]
    if isinstance(value, Mapping):
        return [word for key, text in value.items() for word in (option, f"{key}={text}")]
    return [option, ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]


def _source(uri: str, files: dict[str, Parcel]) -> list[str]:
    from edgekit.remote.transfer import pack

    path = Path(uri)
    if path.is_file():
        files["--source"] = pack(path, "source")
        return []
    if path.is_dir() or not (uri == "demo" or "://" in uri):
        raise InputError(f"source '{one_line(uri)}' is no file here: boards are sent one video or picture")
    return ["--source", uri]


def _detector(out: Output, params: Mapping[str, Any], files: dict[str, Parcel]) -> None:
    from edgekit.downloads import YUNET, UnavailableError, cached_download
    from edgekit.remote.transfer import pack

    path = params["detector_model"]
    if path is None and params["detector_name"] == "yunet":
        # Sent, so that a board without internet has it.
        try:
            path = cached_download(YUNET, notify=out.say)
        except UnavailableError as error:
            out.warn(f"{error}: the boards see for themselves")
    if path is not None:
        files["--detector-model"] = pack(path, "detector model")


class BoardLines:
    """Shows what happens on the boards: lines, and a bar a board on a terminal."""

    def __init__(self, out: Output) -> None:
        from edgekit.cli.progress import progress_bar

        self._out = out
        self._bar = progress_bar(out)
        self._tasks: dict[str, Any] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> BoardLines:
        self._bar.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._bar.__exit__(*exception)

    def say(self, host: Host, text: str) -> None:
        """Print a line about a board."""
        with self._lock:
            self._out.say(f"{host.label}: {one_line(text)}")

    def progress(self, host: Host, what: str, done: float, total: float) -> None:
        """Move the board's bar."""
        from rich.markup import escape

        with self._lock:
            if host.label not in self._tasks:
                self._tasks[host.label] = self._bar.add_task("", total=None)
            description = escape(f"{host.label}: {one_line(what)}")
            self._bar.update(self._tasks[host.label], description=description, completed=done, total=total or None)
