"""`edgekit service`: `edgekit run` as a systemd service."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import chdir, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.command import Group, subcommand
from edgekit.cli.output import Output, printable
from edgekit.cli.settings import checked_run, checked_settings
from edgekit.device.service import ServiceOptions
from edgekit.errors import EdgekitError, InputError
from edgekit.files import real_path
from edgekit.options import Options, option

if TYPE_CHECKING:
    from edgekit.device.service import Scope
    from edgekit.device.service.systemd import SystemdManager


def _variable(text: str) -> tuple[str, str]:
    """Return name and value of an environment variable, NAME=VALUE."""
    name, separator, value = text.partition("=")
    if not separator:
        raise ValueError(f"'{printable(text)}' has no '=': write NAME=VALUE")
    return name, value


@click.group("service", cls=Group, short_help="Run `edgekit run` as a systemd service.")
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


@dataclass(frozen=True, kw_only=True)
class InstallOptions(Options):
    """How the service is installed."""

    title = "Service"
    config: Path | None = option("--config", "Settings of `edgekit run`.", metavar="TOML")
    folder: Path | None = option(
        "--folder",
        "Working directory, which the service may write to; default: the current folder.",
        metavar="DIR",
    )
    writable: tuple[Path, ...] = option(
        "--writable", "Further folder that the service may write to; repeatable.", default=(), metavar="DIR"
    )
    environment: tuple[tuple[str, str], ...] = option(
        "--env",
        "Environment variable; repeatable.",
        default=(),
        metavar="NAME=VALUE",
        parse=_variable,
        several=True,
    )
    run_as: str | None = option(
        "--run-as",
        "User of a system service; default: the user who called sudo.",
        metavar="USER",
        excludes="--user",
    )


@subcommand(
    command,
    "install",
    short_help="Install or replace the service, and start it.",
    service=ServiceOptions,
    chosen=InstallOptions,
)
@click.argument("run_options", nargs=-1, type=click.UNPROCESSED)
def install(out: Output, service: ServiceOptions, chosen: InstallOptions, run_options: tuple[str, ...]) -> None:
    """Install a service that runs `edgekit run` with the settings of --config and the options after `--`.

    The service uses the Python and the folder of this command. An existing service of the same name is replaced. The
    service can read the whole system. A service of the system can write only to its folder, the --writable folders,
    its cache and /var/lib/edgekit/NAME. A service with --user can write wherever its user can. Without --config and
    --records, a service with --jsonl or --csv has --records changes.

    \b
    Examples:
      sudo edgekit service install --config edgekit.toml
      edgekit service install --user -- --camera --jsonl results.jsonl --rotate-files 10MB
      sudo edgekit service install --name door --run-as pi --
          --source rtsp://10.0.0.7/live --csv door.csv --rotate-files 1d
    """
    from edgekit.device.service import ServiceSpec

    if chosen.config is None and not run_options:
        raise click.UsageError("nothing to run: give --config TOML, or options of 'edgekit run' after --")
    scope = _scope(service)
    folder = real_path(chosen.folder or Path())
    options, camera = _checked_options(folder, chosen, run_options)
    run_as = chosen.run_as or os.environ.get("SUDO_USER")
    spec = ServiceSpec(
        name=service.name,
        # -P: a file such as json.py in `folder` is not imported.
        command=(sys.executable, "-P", "-m", "edgekit.cli", "run", *options),
        folder=folder,
        writable=tuple(map(real_path, chosen.writable)),
        environment=dict(chosen.environment),
        run_as=_existing_user(run_as) if scope == "system" else None,  # a user's service runs as this user
    )
    manager = _manager(service)
    _check_packaged_services(service.name, camera)
    for warning in manager.install(spec):
        out.warn(warning)
    out.say(f"service '{service.name}' is installed and starts; see 'edgekit service status{_flags(service)}'")
    out.result(_document(service, manager, command=list(spec.command)))


@subcommand(command, "status", short_help="Show the state of the service.", service=ServiceOptions)
def status(out: Output, service: ServiceOptions) -> None:
    """Show the service's state, number of restarts and last status text. If the service neither runs nor starts, the
    exit code is 1.

    \b
    Examples:
      edgekit service status --system
      edgekit service status --user --name door --json
    """
    from edgekit.deployed import current_releases, unusable

    name, scope = service.name, _scope(service)
    current = _manager(service).status(name)
    rows = {
        "state": current.state,
        "manager": current.manager,
        "pid": current.pid,
        "restarts": current.restarts or None,  # 0 is not printed
        "reports": current.text,
        "last exit": current.last_exit,
        "at boot": "starts" if current.starts_at_boot else None,
    }
    for title, value in rows.items():
        if value is not None:
            out.say(f"{title:9} {value}")
    out.result(dict(vars(current)))
    if current.state in ("running", "starting"):
        return
    cure = ""
    release = current_releases().get(name)  # if the service was deployed
    if current.state == "not installed":
        cure = f" as a {scope} service; give the other of --user and --system"
    elif release and (fault := unusable(release)):
        cure = f"; {fault}"
    raise EdgekitError(f"service '{name}' is not running: {current.state}{cure}")


@subcommand(command, "restart", short_help="Restart the service.", service=ServiceOptions)
def restart(out: Output, service: ServiceOptions) -> None:
    """Restart the service, also after a permanent failure.

    \b
    Examples:
      sudo edgekit service restart
      edgekit service restart --user --name door
    """
    manager = _manager(service)
    manager.restart(service.name)
    out.say(f"service '{service.name}' restarts; see 'edgekit service status{_flags(service)}'")
    out.result(_document(service, manager, restarted=True))


@subcommand(command, "logs", short_help="Show the log of the service.", service=ServiceOptions)
@click.option(
    "--lines", type=click.IntRange(1, 100_000), default=50, show_default=True, metavar="N", help="Number of lines."
)
@click.option("--follow", is_flag=True, help="Show new lines too, until Ctrl-C.")
def logs(out: Output, service: ServiceOptions, lines: int, follow: bool) -> None:
    """Show the last lines of the service's log.

    \b
    Examples:
      edgekit service logs --system
      edgekit service logs --user --lines 500 --follow
    """
    if out.as_json and follow:
        raise click.UsageError("--json is one document and --follow never ends: give one of them")
    # Without --json, it prints to stdout itself.
    journal = _manager(service).logs_command(service.name, lines, follow)
    try:
        done = subprocess.run(journal, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE if out.as_json else None)
    except FileNotFoundError as error:
        raise EdgekitError(f"'{journal[0]}' is not installed: the log cannot be shown") from error
    if done.returncode:
        raise EdgekitError(f"'{journal[0]}' failed with exit code {done.returncode}")
    if out.as_json:
        out.result({"name": service.name, "lines": done.stdout.decode(errors="replace").splitlines()})


@subcommand(command, "remove", short_help="Stop and remove the service.", service=ServiceOptions)
def remove(out: Output, service: ServiceOptions) -> None:
    """Stop and remove the service. Its results and the settings file are kept.

    \b
    Examples:
      sudo edgekit service remove
      edgekit service remove --user --name door
    """
    manager = _manager(service)
    manager.remove(service.name)
    out.say(f"service '{service.name}' is removed")
    out.result(_document(service, manager, removed=True))


def _scope(service: ServiceOptions) -> Scope:
    """Return the scope that the options select; by default "system" for root, else "user"."""
    return service.scope or ("system" if os.geteuid() == 0 else "user")


def _manager(service: ServiceOptions) -> SystemdManager:
    from edgekit.device.service import check_name
    from edgekit.device.service.systemd import find_manager

    check_name(service.name)
    return find_manager(_scope(service))


def _document(service: ServiceOptions, manager: SystemdManager, **done: object) -> dict[str, object]:
    """Return the document of --json: which service it is, and `done`, what the command has done."""
    return {"name": service.name, "manager": manager.name, "scope": _scope(service), **done}


def _check_packaged_services(name: str, camera: str | None) -> None:
    """Check that no service edgekit@NAME of Debian's package has this name or camera; a deploy runs this check, too.

    Raises:
        InputError: One has. Both would write to the same folder, or wait for each other's camera for ever.
    """
    from edgekit.device.service.systemd import packaged_services

    for other in packaged_services():
        cure = f"run 'sudo systemctl disable --now edgekit@{other}'"
        if other == name:
            raise InputError(f"the service edgekit@{name} runs here: {cure}, or choose another --name")
        used = None  # not known if its settings cannot be read
        with suppress(InputError):
            used = checked_settings(Path(f"/etc/edgekit/{other}.toml"))["camera"]
        # "auto" may be any camera.
        if camera and used and (camera == used or "auto" in (camera, used)):
            raise InputError(f"the service edgekit@{other} uses camera '{used}': {cure}, or choose another --camera")


def _checked_options(folder: Path, chosen: InstallOptions, given: Sequence[str]) -> tuple[list[str], str | None]:
    """Return the options of `edgekit run` for the service, and their camera; `given` are the words after `--`.

    They are checked now, because the service could report an error only in its log. Relative paths are relative to
    `folder`. Without a settings file, the service writes only the records of changes, because an SD card wears out.
    """
    config = [] if chosen.config is None else ["--config", str(real_path(chosen.config))]
    options = [*config, *given]
    # A missing folder is an error of `ServiceSpec`.
    with chdir(folder) if folder.is_dir() else nullcontext():
        values = checked_run(options)
    has_records = values["jsonl"] is not None or values["csv"] is not None
    # A deploy gives its settings file in `given`. An option that is added here would stay in the unit, and --records
    # would be an error after the deploy of settings without records.
    flags = {word.partition("=")[0] for word in options}
    if has_records and flags.isdisjoint(("--config", "--records")):
        options += ["--records", "changes"]
    return options, values["camera"]


def _existing_user(name: str | None) -> str | None:
    """Return the name of a user, checked; None for None."""
    import pwd

    if name is None:
        return None
    try:
        return pwd.getpwnam(name).pw_name
    except KeyError:
        raise InputError(f"user '{name}' does not exist: give another --run-as") from None


def _flags(service: ServiceOptions) -> str:
    """Return the options that select the same service in another command."""
    name = f" --name {service.name}" if service.name != "edgekit" else ""
    return f"{name} --{_scope(service)}"
