"""`edgekit deploy`: installs a model and its settings on boards, as a release that replaces the current one."""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.cli.boards.hosts import BoardReporter, HostChoice, host_options, no_install_option, require_hosts
from edgekit.cli.boards.releases import chosen_service, read_package, show_changes
from edgekit.cli.command import command as edgekit_command
from edgekit.cli.options import PATH, NumberRange, ServiceOptions
from edgekit.cli.output import Output


@edgekit_command("deploy", short_help="Install a model on boards as a service.", target=ServiceOptions)
@click.argument("model", metavar="MODEL")
@click.option(
    "--config",
    type=PATH,
    required=True,
    metavar="TOML",
    help="Settings file of `edgekit run` on the boards. MODEL replaces the model of this file.",
)
@click.option(
    "--keep", type=click.IntRange(2, 100), default=3, show_default=True, metavar="N", help="Number of releases to keep."
)
@click.option(
    "--canary",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Number of boards that receive the release first.",
)
@click.option(
    "--settle",
    "settle_s",
    type=NumberRange(0, 3600),
    default=10,
    show_default=True,
    metavar="SECONDS",
    help="Time for which the release must run after its first frame.",
)
@host_options
@no_install_option
def command(
    out: Output,
    chosen: HostChoice,
    model: str,
    config: Path,
    keep: int,
    canary: int,
    settle_s: float,
    target: ServiceOptions,
) -> None:
    """Send model, settings and edgekit to boards, test them there, switch to the new release, and check that it runs.

    MODEL is an .onnx or .ncnn file, `default`, `fer2013` or `distilled`.

    A board is changed only after the model has classified a frame on this board. If the new release gives no first
    frame, or ends soon after the first frame, the board is switched back to the previous release. After the first
    failure, the remaining boards are not changed, and the exit code is 4. The command can be repeated: a board whose
    current release is equal is not changed.

    \b
    Examples:
      edgekit deploy mine.onnx --host pi@raspberrypi.local --config edgekit.toml
      edgekit deploy mine.onnx --inventory boards.toml --canary 1 --config edgekit.toml
    """
    from edgekit.remote.deploy import deploy_host, roll_out

    hosts = require_hosts(chosen)
    service = chosen_service(target)
    package = read_package(out, model, config, keep, settle_s, chosen.install)
    with BoardReporter(out) as reporter:
        results = roll_out(
            hosts,
            lambda connection: deploy_host(connection, package, service, reporter),
            canary=canary,
            parallel=chosen.parallel,
            finished=reporter.finished,
        )
        show_changes(out, results)
