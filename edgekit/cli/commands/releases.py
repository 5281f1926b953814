"""`edgekit releases`: what was deployed on boards."""

from __future__ import annotations

import time
from dataclasses import asdict
from functools import partial
from typing import Any

import click

from edgekit.cli.boards.hosts import BoardListener, HostChoice, host_options, raise_failures, require_hosts
from edgekit.cli.commands.deploy import chosen_service, release_options
from edgekit.cli.output import Output, common_options


@click.command("releases", short_help="List the releases on boards, and how they do.")
@release_options
@host_options
@common_options
def command(out: Output, chosen: HostChoice, name: str, scope: Any) -> None:
    """List the releases on boards: which one runs (*), which failed, and what the service says.

    \b
    Examples:
      edgekit releases --host pi@raspberrypi.local
      edgekit releases --inventory boards.toml --json
    """
    from edgekit.remote.deploy import list_host
    from edgekit.remote.parallel import on_boards

    service = chosen_service(name, scope)
    hosts = require_hosts(chosen)
    with BoardListener(out) as listener:
        work = partial(list_host, service=service, listener=listener)
        listed = on_boards(hosts, work, chosen.parallel)
    boards: list[dict[str, Any]] = []
    for done in listed:
        label, found = done.host.label, done.result
        if found is None:
            continue
        boards.append({"host": label, **asdict(found)})
        cut = "; a change was cut off: deploy or roll back to settle it" if found.cut else ""
        out.say(f"{label}: service {found.service.get('state') or 'not installed'}{cut}")
        for each in found.releases:
            sign = "*" if each.release == found.current else "✗" if each.failed else " "
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(min(max(each.created_unix_s, 0), 1 << 40)))
            out.say(f"{sign} {each.release}  {when}  {each.model}  edgekit {each.edgekit}")
    failures = [(done.host.label, done.error) for done in listed if done.error is not None]
    out.result({"boards": boards, "failed": dict(failures)})
    raise_failures(failures, len(hosts))
