"""`edgekit releases`: lists the releases on boards."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from edgekit.cli.boards.hosts import BoardReporter, report_boards
from edgekit.cli.boards.releases import chosen_service
from edgekit.cli.command import command as edgekit_command
from edgekit.cli.options import ServiceOptions
from edgekit.cli.output import Output
from edgekit.remote.host_options import HostOptions

if TYPE_CHECKING:
    from edgekit.remote.deploy import ReleaseList


@edgekit_command(
    "releases",
    short_help="List the releases on boards, and the state of the service.",
    target=ServiceOptions,
    chosen=HostOptions,
)
def command(out: Output, chosen: HostOptions, target: ServiceOptions) -> None:
    """List the releases on boards, and the state of the service.

    * marks the current release, which the service runs when it runs. ✗ marks other releases that failed.

    \b
    Examples:
      edgekit releases --host pi@raspberrypi.local
      edgekit releases --inventory boards.toml --json
    """
    from edgekit.remote.deploy import list_host
    from edgekit.remote.parallel import run_on_hosts

    service = chosen_service(target)
    hosts = chosen.required_hosts()
    with BoardReporter(out) as reporter:
        results = run_on_hosts(hosts, partial(list_host, service=service, reporter=reporter), chosen.parallel)
    report_boards(out, results, partial(_show, out))


def _show(out: Output, label: str, listed: ReleaseList) -> None:
    cut = "; a change was interrupted: deploy or roll back to complete it" if listed.cut else ""
    out.say(f"{label}: service {listed.service.state or 'not installed'}{cut}")
    for each in listed.releases:
        sign = "*" if each.release == listed.current else "✗" if each.failed else " "
        created = time.strftime("%Y-%m-%d %H:%M", time.localtime(min(max(each.created_unix_s, 0), 1 << 40)))
        out.say(f"{sign} {each.release}  {created}  {each.model}  edgekit {each.edgekit}")
