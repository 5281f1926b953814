"""`edgekit host`: what edgekit keeps on boards."""

from __future__ import annotations

import click

from edgekit.cli.boards.hosts import HostChoice, host_options, raise_failures, require_hosts
from edgekit.cli.output import Output, common_options


@click.group("host", short_help="See to boards over SSH.")
def command() -> None:
    """See to boards over SSH.

    \b
    Examples:
      edgekit host clean --host pi@raspberrypi.local
      edgekit host clean --inventory boards.toml
    """


@command.command("clean")
@host_options
@common_options
def clean_command(out: Output, chosen: HostChoice) -> None:
    """Remove what benchmarks put into the cache on boards: environments, models, clips. Deployed releases stay.

    \b
    Examples:
      edgekit host clean --host pi@raspberrypi.local
    """
    from edgekit.remote.parallel import on_boards
    from edgekit.remote.prepare import clean

    cleaned = on_boards(require_hosts(chosen), clean, chosen.parallel)
    freed = {done.host.label: done.result for done in cleaned if done.result is not None}
    for label, removed_kib in freed.items():
        out.say(f"{label}: {removed_kib / 1024:.1f} MiB removed")
    failures = [(done.host.label, done.error) for done in cleaned if done.error is not None]
    out.result({"removed_kib": freed, "failed": dict(failures)})
    raise_failures(failures, len(cleaned))
