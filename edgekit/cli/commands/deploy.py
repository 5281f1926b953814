"""`edgekit deploy`: a model and its settings onto boards, as a release that replaces the one before, or does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgekit.cli.boards.hosts import (
    BoardListener,
    HostChoice,
    host_options,
    no_install_option,
    raise_failures,
    require_hosts,
    yunet_upload,
)
from edgekit.cli.options import NumberRange
from edgekit.cli.output import Output, common_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgekit.remote.deploy import Outcome, Package, Service

_Function = TypeVar("_Function", bound=Callable[..., None])
# Keys of the settings that need packages beside edgekit[device], and the extra that has them.
_EXTRAS = {"mqtt": "mqtt", "web": "preview"}


def release_options(function: _Function) -> _Function:
    """Add --name, --user and --system; the last two arrive as `scope`."""
    decorators = (
        click.option("--name", default="edgekit", show_default=True, metavar="NAME", help="The service's name."),
        click.option(
            "--user", "scope", flag_value="user", help="The board user's own service; the default unless root."
        ),
        click.option("--system", "scope", flag_value="system", help="The machine's service; log in as root for it."),
    )
    for decorator in reversed(decorators):
        function = decorator(function)
    return function


@click.command("deploy", short_help="Put a model onto boards, and keep it running there.")
@click.argument("model", metavar="MODEL")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    required=True,
    metavar="TOML",
    help="Settings of `edgekit run`; its model is MODEL.",
)
@click.option("--keep", type=click.IntRange(2, 100), default=3, show_default=True, metavar="N", help="Releases kept.")
@click.option("--canary", type=click.IntRange(1), default=1, show_default=True, metavar="N", help="Boards tried first.")
@click.option(
    "--settle",
    "settle_s",
    type=NumberRange(0, 3600),
    default=10,
    show_default=True,
    metavar="SECONDS",
    help="How long it must run after its first frame.",
)
@release_options
@host_options
@no_install_option
@common_options
def command(
    out: Output,
    chosen: HostChoice,
    model: str,
    config: Path,
    keep: int,
    canary: int,
    settle_s: float,
    name: str,
    scope: Any,
) -> None:
    """Send model, settings and edgekit to boards, try them there, switch to them, and watch them start.

    Nothing changes on a board until the model has classified a frame there. A release that does not come to its first
    frame, or does not stay, is replaced by the one before. Boards after the first failure are not touched; the exit
    code is then 4.

    \b
    Examples:
      edgekit deploy mine.onnx --host pi@raspberrypi.local --config edgekit.toml
      edgekit deploy mine.onnx --inventory boards.toml --canary 1 --config edgekit.toml
    """
    from edgekit.remote.deploy import deploy_host, on_hosts

    hosts = require_hosts(chosen)
    service = chosen_service(name, scope)
    package = _package(out, model, config, keep, settle_s, chosen.install)
    with BoardListener(out) as listener:
        outcomes = on_hosts(
            hosts,
            lambda connection: deploy_host(connection, package, service, listener),
            canary=canary,
            parallel=chosen.parallel,
        )
        finish(out, outcomes)


def finish(out: Output, outcomes: Iterator[Outcome]) -> None:
    """Say a line a board, give the document, and raise if a board failed.

    Raises:
        HostError: One did.
    """
    done = []
    for outcome in outcomes:
        done.append(outcome)
        before = f", before {outcome.before}" if outcome.before else ""
        state = "runs" if outcome.service_installed else "is in place, no service was installed"
        out.say(f"{outcome.host.label}: {outcome.error or f'{outcome.release} {state}{before}'}")
    out.result({"boards": [outcome.as_document() for outcome in done]})
    raise_failures([(each.host.label, each.error) for each in done if each.error and each.tried], len(done))


def chosen_service(name: str, scope: Any) -> Service:
    """Return the service that --name, --user and --system name.

    Raises:
        InputError: No service can have that name.
    """
    from edgekit.device.service.spec import check_name
    from edgekit.remote.deploy import Service

    check_name(name)
    return Service(name, scope)


def _package(out: Output, model: str, config: Path, keep: int, settle_s: float, install: bool) -> Package:
    from edgekit.cli.commands.run import command as run_command
    from edgekit.cli.config import read_settings
    from edgekit.errors import InputError
    from edgekit.model_store import DEVICE_SUFFIXES, engine_extras, resolve_model
    from edgekit.remote.deploy import Package
    from edgekit.remote.transfer import pack

    # A slip is refused here, before a board is asked; the board looks again with its own edgekit.
    settings = read_settings(config, run_command)
    if (settings.get("source_uri") is None) == (settings.get("camera") is None):
        raise InputError(f"settings '{config}' must name either a source or a camera")
    path = resolve_model(model, DEVICE_SUFFIXES)
    files = {f"model{path.suffix}": pack(path, "model"), "edgekit.toml": pack(config, "settings")}
    if settings.get("detector_name", "yunet") == "yunet" and settings.get("detector_model") is None:
        detector = yunet_upload(out)
        files |= {} if detector is None else {"detector.onnx": detector}
    extras = tuple(extra for key, extra in _EXTRAS.items() if settings.get(key) is not None)
    extras += engine_extras([path])
    camera = settings.get("camera")
    return Package(files, path.name, keep, None if camera is None else str(camera), extras, install, settle_s)
