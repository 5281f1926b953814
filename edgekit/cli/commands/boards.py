"""`edgekit deploy`, `rollback`, `releases`, `undeploy` and `host`: releases and files of edgekit on boards over SSH."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from edgekit.cli.boards import BoardReporter, needs_detector, raise_failures, yunet_upload
from edgekit.cli.command import Group, subcommand
from edgekit.cli.command import command as edgekit_command
from edgekit.cli.output import Output
from edgekit.cli.settings import checked_settings
from edgekit.device.service import ServiceOptions
from edgekit.options import Options, option
from edgekit.remote.hosts import HostOptions, InstallingHostOptions
from edgekit.text import counted

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from edgekit.remote.deploy import Package, ReleaseChange, ReleaseList, Removal, Service
    from edgekit.remote.parallel import HostResult

_T = TypeVar("_T", bound="DataclassInstance")

# Releases that stay on a board, for `edgekit rollback`.
_KEPT_RELEASES = 3
# Settings that need packages in addition to edgekit-pi[device], and the extra that installs them.
_EXTRAS = {"mqtt": "mqtt", "web": "preview", "gpio": "gpio", "gpio-button": "gpio"}


@dataclass(frozen=True, kw_only=True)
class DeployOptions(Options):
    """The release, and how it reaches the boards."""

    title = "Release"
    config: Path = option(
        "--config",
        "Settings file of `edgekit run` on the boards. MODEL replaces the model of this file.",
        metavar="TOML",
        required=True,
    )
    canary: int = option("--canary", "Number of boards that receive the release first.", default=1, least=1)
    settle_s: float = option(
        "--settle",
        "Time for which the release must run after its first frame.",
        default=10.0,
        metavar="SECONDS",
        least=0,
        most=3600,
    )


@edgekit_command(
    "deploy",
    short_help="Install a model on boards as a service.",
    options=DeployOptions,
    target=ServiceOptions,
    chosen=InstallingHostOptions,
)
@click.argument("model", metavar="MODEL")
def deploy(
    out: Output, model: str, options: DeployOptions, target: ServiceOptions, chosen: InstallingHostOptions
) -> None:
    """Send model, settings and edgekit to boards, test them there, switch to the new release, and check that it runs.

    MODEL is an .onnx or .ncnn file, `default`, `fer2013` or `distilled`.

    A board is changed only after the model has classified a frame on this board. If the new release then gives no
    frame, or ends soon after its first frame, the board is switched back to the previous release. After the first
    failure, the remaining boards are not changed, and the exit code is 4. The command can be repeated: boards that have
    this release already are not changed.

    \b
    Examples:
      edgekit deploy mine.onnx --host pi@raspberrypi.local --config edgekit.toml
      edgekit deploy mine.onnx --inventory boards.toml --config edgekit.toml
    """
    from edgekit.remote.deploy import deploy_host, roll_out

    hosts = chosen.required_hosts()
    service = _chosen_service(target)
    package = read_package(out, model, options.config, options.settle_s, install=not chosen.no_install)
    with BoardReporter(out) as reporter:
        results = roll_out(
            hosts,
            lambda connection: deploy_host(connection, package, service, reporter),
            canary=options.canary,
            parallel=chosen.parallel,
            finished=reporter.finished,
        )
        _show_changes(out, results)


@dataclass(frozen=True, kw_only=True)
class RollbackOptions(Options):
    """The release to switch to."""

    wanted: str | None = option(
        "--to",
        "Switch to this release; 'edgekit releases' lists them. The part after the number is the same on all boards.",
        metavar="RELEASE",
    )


@edgekit_command(
    "rollback",
    short_help="Switch boards back to the previous release.",
    target=ServiceOptions,
    chosen=HostOptions,
    options=RollbackOptions,
)
def rollback(out: Output, chosen: HostOptions, target: ServiceOptions, options: RollbackOptions) -> None:
    """Switch boards back to the previous release, and check that it runs.

    If a board fails or cannot be reached, the other boards are still switched, and the exit code is 4. Boards on which
    the release of --to is already current are not changed. Without --to, each call goes back one more release.

    \b
    Examples:
      edgekit rollback --host pi@raspberrypi.local
      edgekit rollback --host pi@raspberrypi.local --to 0003-1f2e3d4c
      edgekit rollback --inventory boards.toml --to 1f2e3d4c
    """
    from edgekit.remote.deploy import roll_out, rollback_host

    service = _chosen_service(target)
    hosts = chosen.required_hosts()
    with BoardReporter(out) as reporter:
        results = roll_out(
            hosts,
            lambda connection: rollback_host(connection, service, options.wanted, reporter),
            canary=None,  # a failure stops no other board
            parallel=chosen.parallel,
        )
        _show_changes(out, results)


@edgekit_command(
    "releases",
    short_help="List the releases on boards, and the state of the service.",
    target=ServiceOptions,
    chosen=HostOptions,
)
def releases(out: Output, chosen: HostOptions, target: ServiceOptions) -> None:
    """List the releases on boards, and the state of the service.

    * marks the current release, which the service runs when it runs. ✗ marks other releases that failed.

    \b
    Examples:
      edgekit releases --host pi@raspberrypi.local
      edgekit releases --inventory boards.toml --json
    """
    from edgekit.remote.deploy import list_host

    work = partial(list_host, service=_chosen_service(target))
    _on_boards(out, chosen, work, partial(_show_releases, out))


def _show_releases(out: Output, label: str, listed: ReleaseList) -> None:
    """Print the state of a board's service, and one line per release: * for the current one, ✗ for one that failed."""
    cut = "; a change was interrupted: deploy or roll back to complete it" if listed.cut else ""
    out.say(f"{label}: service {listed.service.state or 'not installed'}{cut}")
    for each in listed.releases:
        sign = "✗" if each.failed else " "
        if each.release == listed.current:
            sign = "*"
        # Limited, because the number comes from the board, and `time.localtime` fails for a huge one.
        created_s = min(max(each.created_unix_s, 0), 1 << 40)
        created = time.strftime("%Y-%m-%d %H:%M", time.localtime(created_s))
        out.say(f"{sign} {each.release}  {created}  {each.model}  edgekit {each.edgekit}")


@dataclass(frozen=True, kw_only=True)
class UndeployOptions(Options):
    """What stays on the boards."""

    keep_data: bool = option(
        "--keep-data", "Keep the recordings and the settings of the current release.", default=False
    )


@edgekit_command(
    "undeploy",
    short_help="Remove releases and their service from boards.",
    target=ServiceOptions,
    chosen=HostOptions,
    options=UndeployOptions,
)
def undeploy(out: Output, chosen: HostOptions, target: ServiceOptions, options: UndeployOptions) -> None:
    """Stop and remove the service that deploy installed, all releases, and their folder with the recordings.

    The command does not prompt for confirmation. The result lists what was removed from each board. A service that
    deploy did not install is not changed. If a board fails, the other boards are still processed, and the exit code is
    4. `edgekit host clean` removes the cache of packages.

    \b
    Examples:
      edgekit undeploy --host pi@raspberrypi.local
      edgekit undeploy --inventory boards.toml --keep-data
    """
    from edgekit.remote.deploy import undeploy_host

    work = partial(undeploy_host, service=_chosen_service(target), keep_data=options.keep_data)
    _on_boards(out, chosen, work, lambda label, removal: out.say(f"{label}: {_removed_text(removal, target.name)}"))


def _removed_text(removal: Removal, name: str) -> str:
    """Return what was removed from a board, as text; `name` is the name of the service."""
    parts = [f"service '{name}'"] if removal.service else []
    parts += [counted(len(removal.releases), "release")] if removal.releases else []
    parts += removal.folders
    if not parts:
        return f"nothing was deployed as service '{name}'"
    kept = f"; kept {', '.join(removal.kept)}" if removal.kept else ""
    return f"removed {', '.join(parts)}{kept}"


@click.group("host", cls=Group, short_help="Manage edgekit's files on boards.")
def host() -> None:
    """Manage edgekit's files on boards over SSH.

    \b
    Examples:
      edgekit host clean --host pi@raspberrypi.local
      edgekit host clean --inventory boards.toml
    """


@subcommand(host, "clean", short_help="Remove the cache of benchmarks from boards.", chosen=HostOptions)
def clean(out: Output, chosen: HostOptions) -> None:
    """Remove the cache of benchmarks from boards: environments, models, sources. Deployed releases are kept.

    \b
    Examples:
      edgekit host clean --host pi@raspberrypi.local
    """
    from edgekit.remote.parallel import run_on_hosts
    from edgekit.remote.prepare import clean as clean_board

    results = run_on_hosts(chosen.required_hosts(), clean_board, chosen.parallel)
    freed_kib = {done.host.label: done.result for done in results if done.result is not None}
    for label, size_kib in freed_kib.items():
        out.say(f"{label}: {size_kib / 1024:.1f} MiB removed")
    failed = {done.host.label: done.error for done in results if done.error is not None}
    out.result({"removed_kib": freed_kib, "failed": failed})
    raise_failures(results)


def _chosen_service(target: ServiceOptions) -> Service:
    """Return the service that --name, --user and --system select.

    Raises:
        InputError: The name is not valid.
    """
    from edgekit.device.service import check_name
    from edgekit.remote.deploy import Service

    check_name(target.name)  # before a board is reached
    return Service(target.name, target.scope)


def read_package(out: Output, model: str, config: Path, settle_s: float, install: bool) -> Package:
    """Return the release made of a model and a settings file.

    Raises:
        InputError: The settings are not valid for `edgekit run`, or a file cannot be read.
    """
    from edgekit.model_store import DEVICE_SUFFIXES, engine_extras, resolve_model
    from edgekit.remote.deploy import Package
    from edgekit.remote.payload import pack

    # Reports mistakes before a board is reached; the board checks the settings again with its own edgekit.
    settings = checked_settings(config)
    path = resolve_model(model, DEVICE_SUFFIXES)
    files = {f"model{path.suffix}": pack(path, "model"), "edgekit.toml": pack(config, "settings")}
    # None: `edgekit run` chooses YuNet for a model of faces.
    if settings["detector"] in (None, "yunet") and needs_detector(path):
        yunet = yunet_upload(out)
        if yunet is not None:  # else the board downloads it
            files["detector.onnx"] = yunet
    # An option that is not set is None, or an empty list if it can be repeated.
    used_extras = [extra for key, extra in _EXTRAS.items() if settings[key] not in (None, [])]
    extras = (*dict.fromkeys(used_extras), *engine_extras([path]))  # each once
    camera: str | None = settings["camera"]
    return Package(
        files, path.name, keep=_KEPT_RELEASES, camera=camera, extras=extras, install=install, settle_s=settle_s
    )


def _show_changes(out: Output, results: Iterator[HostResult[ReleaseChange]]) -> None:
    """Print one line per board as the results arrive, then the JSON document, and errors at the end.

    Raises:
        HostError: A board failed.
        KeyboardInterrupt: Ctrl-C was pressed.
    """
    from edgekit.remote.deploy import change_document

    done = []
    try:
        for result in results:
            done.append(result)
            if not result.tried:
                out.say(f"{result.host.label}: {result.error}")  # the reason why the board was skipped
            elif result.error is None and result.result is not None:  # failures are printed at the end
                out.say(f"{result.host.label}: {_change_text(result.result)}")
    finally:
        out.result({"boards": [change_document(result) for result in done]})
    if any(result.interrupted for result in done):
        out.warn("interrupted: check the boards with 'edgekit releases'")
    raise_failures(done)


def _change_text(change: ReleaseChange) -> str:
    if change.already_current:
        return f"{change.release} is already current"
    return f"{change.release} runs" + (f"; before: {change.before}" if change.before else "")


def _on_boards(out: Output, chosen: HostOptions, work: Callable[..., _T], show: Callable[[str, _T], None]) -> None:
    """Call `work` for each board, and `show` with its label and result; print the JSON document, raise the failures.

    Raises:
        KeyboardInterrupt, HostError: As `raise_failures`.
    """
    from edgekit.remote.parallel import run_on_hosts

    hosts = chosen.required_hosts()
    with BoardReporter(out) as reporter:
        results = run_on_hosts(hosts, partial(work, reporter=reporter), chosen.parallel)
    found = {done.host.label: done.result for done in results if done.result is not None}
    for label, result in found.items():
        show(label, result)
    failed = {done.host.label: done.error for done in results if done.error is not None}
    out.result({"boards": [{"host": label, **asdict(result)} for label, result in found.items()], "failed": failed})
    raise_failures(results)
