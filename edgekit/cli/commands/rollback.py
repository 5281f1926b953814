"""`edgekit rollback`: switches boards to an earlier release."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.cli.boards.hosts import BoardReporter
from edgekit.cli.boards.releases import chosen_service, show_changes
from edgekit.cli.command import command as edgekit_command
from edgekit.cli.options import ServiceOptions
from edgekit.cli.output import Output
from edgekit.options import Options, option
from edgekit.remote.host_options import HostOptions


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
def command(out: Output, chosen: HostOptions, target: ServiceOptions, options: RollbackOptions) -> None:
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

    service = chosen_service(target)
    hosts = chosen.required_hosts()
    with BoardReporter(out) as reporter:
        results = roll_out(
            hosts,
            lambda connection: rollback_host(connection, service, options.wanted, reporter),
            canary=None,  # a failure stops no other board
            parallel=chosen.parallel,
        )
        show_changes(out, results)
