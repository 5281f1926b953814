"""`edgekit host`: what edgekit keeps on boards."""

from __future__ import annotations

import click

from edgekit.cli.common import Output, common_options
from edgekit.cli.hosts import HostChoice, host_options, raise_failures, require_hosts


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
    from edgekit.errors import HostError
    from edgekit.remote.prepare import clean
    from edgekit.remote.ssh import Connection

    freed: dict[str, int] = {}
    failures = []
    for host in require_hosts(chosen):
        try:
            with Connection(host) as connection:
                freed[host.label] = clean(connection)
        except HostError as error:
            failures.append((host.label, str(error).removeprefix(f"{host.label}: ")))
            continue
        out.say(f"{host.label}: {freed[host.label] / 1024:.1f} MiB removed")
    out.result({"removed_kib": freed, "failed": dict(failures)})
    raise_failures(failures, len(chosen.hosts))
