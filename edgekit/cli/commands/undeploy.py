"""`edgekit undeploy`: removes releases, their service and their folders from boards."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from edgekit.cli.boards.hosts import BoardReporter, report_boards
from edgekit.cli.boards.releases import chosen_service
from edgekit.cli.command import command as edgekit_command
from edgekit.cli.options import ServiceOptions
from edgekit.cli.output import Output
from edgekit.options import Options, option
from edgekit.remote.host_options import HostOptions
from edgekit.text import counted

if TYPE_CHECKING:
    from edgekit.remote.deploy import Removal


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
def command(out: Output, chosen: HostOptions, target: ServiceOptions, options: UndeployOptions) -> None:
    """Stop and remove the service that deploy installed, all releases, and their folder with the recordings.

    The command does not prompt for confirmation. The result lists what was removed from each board. A service that
    deploy did not install is not changed. If another process uses the folder, no release is removed. If a board fails,
    the other boards are still processed, and the exit code is 4. `edgekit host clean` removes the cache of packages.

    \b
    Examples:
      edgekit undeploy --host pi@raspberrypi.local
      edgekit undeploy --inventory boards.toml --keep-data
    """
    from edgekit.remote.deploy import undeploy_host
    from edgekit.remote.parallel import run_on_hosts

    service = chosen_service(target)
    hosts = chosen.required_hosts()
    with BoardReporter(out) as reporter:
        work = partial(undeploy_host, service=service, keep_data=options.keep_data, reporter=reporter)
        results = run_on_hosts(hosts, work, chosen.parallel)
    report_boards(out, results, lambda label, removal: out.say(f"{label}: {_describe(removal, target.name)}"))


def _describe(removal: Removal, name: str) -> str:
    parts = [f"service '{name}'"] if removal.service else []
    parts += [counted(len(removal.releases), "release")] if removal.releases else []
    parts += removal.folders
    if not parts:
        return f"nothing was deployed as service '{name}'"
    kept = f"; kept {', '.join(removal.kept)}" if removal.kept else ""
    return f"removed {', '.join(parts)}{kept}"
