"""`edgekit service`: `edgekit run` as a systemd service."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import chdir, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.options import PATH, service_options
from edgekit.cli.output import Output, common_options, printable
from edgekit.cli.run.checks import checked_values
from edgekit.errors import EdgekitError, InputError
from edgekit.files import real_path

if TYPE_CHECKING:
    from edgekit.device.service.spec import Scope
    from edgekit.device.service.systemd import SystemdManager


@click.group("service", short_help="Run `edgekit run` as a systemd service.")
def command() -> None:
    """Run `edgekit run` as a systemd service: started at boot and restarted after a failure.

    On machines without systemd, `edgekit run` works in the foreground under any service manager.

    \b
    Examples:
      sudo edgekit service install --config edgekit.toml
      edgekit service status --system
      edgekit service logs --system --follow
      sudo edgekit service remove
    """


@command.command("install", short_help="Install or replace the service, and start it.")
@service_options
@click.option("--config", type=PATH, metavar="TOML", help="Settings of `edgekit run`.")
@click.option(
    "--folder",
    type=PATH,
    metavar="DIR",
    help="Working directory, which the service may write to; default: the current folder.",
)
@click.option(
    "--writable",
    multiple=True,
    type=PATH,
    metavar="DIR",
    help="Further folder that the service may write to; repeatable.",
)
@click.option("--env", "variables", multiple=True, metavar="NAME=VALUE", help="Environment variable; repeatable.")
@click.option("--run-as", metavar="USER", help="User of a system service; default: the user who called sudo.")
@click.argument("run_options", nargs=-1, type=click.UNPROCESSED)
@common_options
def install(
    out: Output,
    name: str,
    scope: Scope | None,
    config: Path | None,
    folder: Path | None,
    writable: tuple[Path, ...],
    variables: tuple[str, ...],
    run_as: str | None,
    run_options: tuple[str, ...],
) -> None:
    """Install a service that runs `edgekit run` with the settings of --config and the options after `--`.

    The service uses the Python and the folder of this command. An existing service of the same name is replaced. The
    service can read the whole system. A service of the system can write only to its folder, the --writable folders,
    its cache and /var/lib/edgekit/NAME. A service with --user can write wherever its user can. Without --config and
    --records, a service with --jsonl or --csv has --records changes.

    \b
    Examples:
      sudo edgekit service install --config edgekit.toml
      edgekit service install --user -- --camera --jsonl results.jsonl --rotate-size 10MB
      sudo edgekit service install --name door --run-as pi --
          --source rtsp://10.0.0.7/live --csv door.csv --rotate-age 1d
    """
    from edgekit.device.service.spec import ServiceSpec

    if config is None and not run_options:
        raise click.UsageError("nothing to run: give --config TOML, or options of 'edgekit run' after --")
    chosen = _scope(scope)
    if run_as is not None and chosen == "user":
        raise click.UsageError("--run-as is for a --system service: a user service runs as you")
    run_folder = real_path(folder or Path())
    options = _checked_options(run_folder, config, run_options)
    spec = ServiceSpec(
        name=name,
        command=(sys.executable, "-P", "-m", "edgekit.cli", "run", *options),
        folder=run_folder,
        writable=tuple(map(real_path, writable)),
        environment=dict(map(_variable, variables)),
        run_as=_existing_user(run_as or os.environ.get("SUDO_USER")) if chosen == "system" else None,
    )
    manager = _manager(chosen, name)
    for warning in manager.install(spec):
        out.warn(warning)
    out.say(f"service '{name}' is installed and starts; see 'edgekit service status{_flags(name, chosen)}'")
    out.result(_document(name, manager, chosen, command=list(spec.command)))


@command.command("status", short_help="Show the state of the service.")
@service_options
@common_options
def status(out: Output, name: str, scope: Scope | None) -> None:
    """Show the service's state, number of restarts and last status text. If the service neither runs nor starts, the
    exit code is 1.

    \b
    Examples:
      edgekit service status --system
      edgekit service status --user --name door --json
    """
    from edgekit.deployed import current_releases, unusable

    chosen = _scope(scope)
    found = _manager(chosen, name).status(name)
    rows = {
        "state": found.state,
        "manager": found.manager,
        "pid": found.pid,
        "restarts": found.restarts or None,
        "reports": found.text,
        "last exit": found.last_exit,
        "at boot": "starts" if found.starts_at_boot else None,
    }
    for title, value in rows.items():
        if value is not None:
            out.say(f"{title:9} {value}")
    out.result(found.as_document())
    if found.state not in ("running", "starting"):
        cure = f" as a {chosen} service; give the other of --user and --system"
        if found.state != "not installed":
            release = current_releases().get(name)
            fault = unusable(release) if release else None
            cure = f"; {fault}" if fault else ""
        raise EdgekitError(f"service '{name}' is not running: {found.state}{cure}")


@command.command("restart", short_help="Restart the service.")
@service_options
@common_options
def restart(out: Output, name: str, scope: Scope | None) -> None:
    """Restart the service, also after a permanent failure.

    \b
    Examples:
      sudo edgekit service restart
      edgekit service restart --user --name door
    """
    chosen = _scope(scope)
    manager = _manager(chosen, name)
    manager.restart(name)
    out.say(f"service '{name}' restarts; see 'edgekit service status{_flags(name, chosen)}'")
    out.result(_document(name, manager, chosen, restarted=True))


@command.command("logs", short_help="Show the log of the service.")
@service_options
@click.option(
    "--lines", type=click.IntRange(1, 100_000), default=50, show_default=True, metavar="N", help="Number of lines."
)
@click.option("--follow", is_flag=True, help="Show new lines too, until Ctrl-C.")
@common_options
def logs(out: Output, name: str, scope: Scope | None, lines: int, follow: bool) -> None:
    """Show the last lines of the service's log.

    \b
    Examples:
      edgekit service logs --system
      edgekit service logs --user --lines 500 --follow
    """
    if out.as_json and follow:
        raise click.UsageError("--json is one document and --follow never ends: give one of them")
    journal = _manager(_scope(scope), name).logs_command(name, lines, follow)
    try:
        done = subprocess.run(journal, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE if out.as_json else None)
    except FileNotFoundError as error:
        raise EdgekitError(f"'{journal[0]}' is not installed: the log cannot be shown") from error
    if done.returncode:
        raise EdgekitError(f"'{journal[0]}' failed with exit code {done.returncode}")
    if out.as_json:
        out.result({"name": name, "lines": done.stdout.decode(errors="replace").splitlines()})


@command.command("remove", short_help="Stop and remove the service.")
@service_options
@common_options
def remove(out: Output, name: str, scope: Scope | None) -> None:
    """Stop and remove the service. Its results and the settings file are kept.

    \b
    Examples:
      sudo edgekit service remove
      edgekit service remove --user --name door
    """
    chosen = _scope(scope)
    manager = _manager(chosen, name)
    manager.remove(name)
    out.say(f"service '{name}' is removed")
    out.result(_document(name, manager, chosen, removed=True))


def _scope(scope: Scope | None) -> Scope:
    return scope or ("system" if os.geteuid() == 0 else "user")


def _manager(scope: Scope, name: str) -> SystemdManager:
    from edgekit.device.service.spec import check_name
    from edgekit.device.service.systemd import find_manager

    check_name(name)
    return find_manager(scope)


def _document(name: str, manager: SystemdManager, scope: Scope, **done: object) -> dict[str, object]:
    return {"name": name, "manager": manager.name, "scope": scope, **done}


def _variable(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise click.UsageError(f"--env '{printable(text)}' has no '=': write NAME=VALUE")
    return name, value


def _checked_options(folder: Path, config: Path | None, given: Sequence[str]) -> list[str]:
    """Return the options of `edgekit run`, checked now, because the service could report an error only in its log.

    Without a settings file, the service writes only the records of changes, because an SD card wears out.
    """
    options = [*(["--config", str(real_path(config))] if config is not None else []), *given]
    with chdir(folder) if folder.is_dir() else nullcontext():
        values = checked_values(options)
    has_records = values["jsonl"] is not None or values["csv_file"] is not None
    is_chosen = config is not None or any(word.partition("=")[0] == "--records" for word in given)
    return [*options, *(["--records", "changes"] if has_records and not is_chosen else [])]


def _existing_user(name: str | None) -> str | None:
    import pwd

    if name is None:
        return None
    try:
        return pwd.getpwnam(name).pw_name
    except KeyError:
        raise InputError(f"user '{name}' does not exist: give another --run-as") from None


def _flags(name: str, scope: Scope) -> str:
    return (f" --name {name}" if name != "edgekit" else "") + f" --{scope}"
