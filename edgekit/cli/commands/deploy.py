"""`edgekit deploy`: installs a model and its settings on boards, as a release that replaces the current one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from edgekit.cli.boards.hosts import BoardReporter
from edgekit.cli.boards.releases import chosen_service, read_package, show_changes
from edgekit.cli.command import command as edgekit_command
from edgekit.cli.options import ServiceOptions
from edgekit.cli.output import Output
from edgekit.options import Options, option
from edgekit.remote.host_options import InstallingHostOptions


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
def command(
    out: Output, model: str, options: DeployOptions, target: ServiceOptions, chosen: InstallingHostOptions
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

    hosts = chosen.required_hosts()
    service = chosen_service(target)
    package = read_package(out, model, options.config, options.settle_s, install=not chosen.no_install)
    with BoardReporter(out) as reporter:
        results = roll_out(
            hosts,
            lambda connection: deploy_host(connection, package, service, reporter),
            canary=options.canary,
            parallel=chosen.parallel,
            finished=reporter.finished,
        )
        show_changes(out, results)
