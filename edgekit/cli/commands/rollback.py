"""`edgekit rollback`: boards go back to the release before."""

from __future__ import annotations

from typing import Any

import click

from edgekit.cli.boards.hosts import BoardListener, HostChoice, host_options, require_hosts
from edgekit.cli.commands.deploy import chosen_service, finish, release_options
from edgekit.cli.output import Output, common_options


@click.command("rollback", short_help="Have boards go back to the release before.")
@click.option("--to", "wanted", metavar="RELEASE", help="Go to this one; 'edgekit releases' lists them.")
@release_options
@host_options
@common_options
def command(out: Output, chosen: HostChoice, wanted: str | None, name: str, scope: Any) -> None:
    """Switch boards to the release that ran before the current one, and watch it start.

    \b
    Examples:
      edgekit rollback --host pi@raspberrypi.local
      edgekit rollback --host pi@raspberrypi.local --to 0003-1f2e3d4c
    """
    from edgekit.remote.deploy import on_hosts, rollback_host

    service = chosen_service(name, scope)
    hosts = require_hosts(chosen)
    with BoardListener(out) as listener:
        outcomes = on_hosts(
            hosts,
            lambda connection: rollback_host(connection, service, wanted, listener),
            canary=1,
            parallel=chosen.parallel,
        )
        finish(out, outcomes)
