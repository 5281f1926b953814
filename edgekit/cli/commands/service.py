"""`edgekit service`: `edgekit run` at boot, watched, and started again when it fails."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import chdir, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from edgekit.cli.output import Output, common_options, printable
from edgekit.errors import EdgekitError, InputError

if TYPE_CHECKING:
    from edgekit.device.service import Manager, Scope

_Function = TypeVar("_Function", bound=Callable[..., None])


def _which_options(function: _Function) -> _Function:
    """Add --name, --user and --system; the last two arrive as `scope`."""
    decorators = (
        click.option(
            "--name", default="edgekit", show_default=True, metavar="NAME", help="What the service is called."
        ),
        click.option("--user", "scope", flag_value="user", help="One of your own; the default unless you are root."),
        click.option("--system", "scope", flag_value="system", help="One of the machine; needs root."),
    )
    for decorator in reversed(decorators):
        function = decorator(function)
    return function


@click.group("service", short_help="Keep `edgekit run` running, from boot on.")
def command() -> None:
    """Keep `edgekit run` running: started at boot, watched, and started again when it fails.

    systemd does it where it runs; elsewhere a small supervisor of edgekit's own takes the same commands.

    \b
    Examples:
      sudo edgekit service install --config edgekit.toml
      edgekit service status --system
      edgekit service logs --system --follow
      sudo edgekit service remove
    """


@command.command("install", short_help="Install the service, or replace it, and start it.")
@_which_options
@click.option(
    "--config", type=click.Path(path_type=Path), metavar="TOML", help="The settings, as for `edgekit run --config`."
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where it runs and may write; default: the current folder.",
)
@click.option("--writable", multiple=True, type=click.Path(path_type=Path), metavar="DIR", help="May write there too.")
@click.option("--env", "variables", multiple=True, metavar="NAME=VALUE", help="An environment variable for it.")
@click.option("--run-as", metavar="USER", help="The user of a system service; default: who called sudo.")
@click.argument("run_options", nargs=-1, type=click.UNPROCESSED)
@common_options
def install(
    out: Output,
    name: str,
    scope: str | None,
    config: Path | None,
    folder: Path | None,
    writable: tuple[Path, ...],
    variables: tuple[str, ...],
    run_as: str | None,
    run_options: tuple[str, ...],
) -> None:
    """Install a service that runs `edgekit run` with the settings of --config and the options after `--`.

    It runs with this Python, from this folder. An installed service of the same name is replaced. It may read the whole
    system but write only to its folder, --writable and its cache.

    \b
    Examples:
      sudo edgekit service install --config edgekit.toml
      edgekit service install --user -- --camera --jsonl results.jsonl
      sudo edgekit service install --name door --run-as pi -- --source rtsp://10.0.0.7/live --csv door.csv
    """
    from edgekit.device.service import ServiceSpec

    if config is None and not run_options:
        raise click.UsageError("nothing to run: give --config TOML, or options of 'edgekit run' after --")
    manager, chosen = _manager(scope, name)
    if run_as is not None and chosen == "user":
        raise click.UsageError("--run-as is for a --system service: your own runs as you")
    settings = ["--config", str(config.resolve())] if config is not None else []
    where = (folder or Path()).resolve()
    _check_run_options(where, [*settings, *run_options])
    spec = ServiceSpec(
        name=name,
        command=(sys.executable, "-P", "-m", "edgekit.cli", "run", *settings, *run_options),
        folder=where,
        writable=tuple(path.resolve() for path in writable),
        environment=dict(map(_variable, variables)),
        run_as=_known_user(run_as or os.environ.get("SUDO_USER")) if chosen == "system" else None,
    )
    for line in manager.install(spec):
        out.warn(line)
    out.say(f"service '{name}' is installed and starts; see 'edgekit service status{_flags(name, chosen)}'")
    out.result(_document(name, manager, chosen, command=list(spec.command)))


@command.command("status", short_help="Say how the service is.")
@_which_options
@common_options
def status(out: Output, name: str, scope: str | None) -> None:
    """Say whether the service runs, since how many restarts, and what it reports; the exit code is 1 if it does not.

    \b
    Examples:
      edgekit service status
      edgekit service status --name door --json
    """
    manager, _ = _manager(scope, name)
    found = manager.status(name)
    rows = {
        "state": found.state,
        "kept by": found.manager,
        "pid": found.pid,
        "restarts": found.restarts or None,
        "reports": found.text,
        "last end": found.last_exit,
        "at boot": "starts" if found.starts_at_boot else None,
    }
    for title, value in rows.items():
        if value is not None:
            out.say(f"{title:9} {value}")
    out.result(found.as_document())
    if found.state not in ("running", "starting"):
        raise EdgekitError(f"service '{name}' is not running: {found.state}")


@command.command("restart", short_help="Start the service anew.")
@_which_options
@common_options
def restart(out: Output, name: str, scope: str | None) -> None:
    """Stop what the service runs and start it anew, also after a failure that stayed.

    \b
    Examples:
      sudo edgekit service restart
      edgekit service restart --user --name door
    """
    manager, chosen = _manager(scope, name)
    manager.restart(name)
    out.say(f"service '{name}' starts anew; see 'edgekit service status{_flags(name, chosen)}'")
    out.result(_document(name, manager, chosen, restarted=True))


@command.command("logs", short_help="Show what the service wrote.")
@_which_options
@click.option("--lines", type=click.IntRange(1, 100_000), default=50, show_default=True, metavar="N", help="How many.")
@click.option("--follow", is_flag=True, help="Go on showing what comes, until Ctrl-C.")
@common_options
def logs(out: Output, name: str, scope: str | None, lines: int, follow: bool) -> None:
    """Show the latest lines of the service.

    \b
    Examples:
      edgekit service logs
      edgekit service logs --lines 500 --follow
    """
    if out.as_json and follow:
        raise click.UsageError("--json is one document and --follow never ends: leave one out")
    manager, _ = _manager(scope, name)
    shown = manager.logs_command(name, lines, follow)
    try:
        done = subprocess.run(shown, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE if out.as_json else None)
    except FileNotFoundError as error:
        raise EdgekitError(f"'{shown[0]}' is not installed: the logs cannot be shown") from error
    if done.returncode:
        raise EdgekitError(f"'{shown[0]}' failed with exit code {done.returncode}")
    if out.as_json:
        out.result({"name": name, "lines": done.stdout.decode(errors="replace").splitlines()})


@command.command("remove", short_help="Stop the service and take it away.")
@_which_options
@common_options
def remove(out: Output, name: str, scope: str | None) -> None:
    """Stop the service and take it away. What it recorded and the settings stay.

    \b
    Examples:
      sudo edgekit service remove
      edgekit service remove --user --name door
    """
    manager, chosen = _manager(scope, name)
    manager.remove(name)
    out.say(f"service '{name}' is removed")
    out.result(_document(name, manager, chosen, removed=True))


def _manager(scope: str | None, name: str) -> tuple[Manager, Scope]:
    from edgekit.device.service import check_name, find_manager

    check_name(name)
    if scope is None:
        scope = "system" if os.geteuid() == 0 else "user"
    chosen: Scope = "system" if scope == "system" else "user"
    return find_manager(chosen), chosen


def _document(name: str, manager: Manager, scope: Scope, **done: object) -> dict[str, object]:
    return {"name": name, "manager": manager.name, "scope": scope, **done}


def _variable(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise click.UsageError(f"--env takes NAME=VALUE, not '{printable(text)}'")
    return name, value


def _check_run_options(folder: Path, options: list[str]) -> None:
    """Refuse here, where somebody reads it, what `edgekit run` would refuse in a log."""
    from edgekit.cli.commands.run import command as run_command

    with chdir(folder) if folder.is_dir() else nullcontext():
        parameters = run_command.make_context("edgekit run", options).params
    if parameters["source_uri"] is None and parameters["camera"] is None:
        raise click.UsageError("the service has nothing to look at: give it a source or a camera")


def _known_user(name: str | None) -> str | None:
    import pwd

    if name is None:
        return None
    try:
        return pwd.getpwnam(name).pw_name
    except KeyError:
        raise InputError(f"user '{name}' does not exist: give --run-as another") from None


def _flags(name: str, scope: Scope) -> str:
    return (f" --name {name}" if name != "edgekit" else "") + f" --{scope}"
