"""`edgekit host`: manages edgekit's files on boards."""

from __future__ import annotations

import click

from edgekit.cli.boards.hosts import raise_failures
from edgekit.cli.command import Group, subcommand
from edgekit.cli.output import Output
from edgekit.remote.host_options import HostOptions


@click.group("host", cls=Group, short_help="Manage edgekit's files on boards.")
def command() -> None:
    """Manage edgekit's files on boards over SSH.

    \b
    Examples:
      edgekit host clean --host pi@raspberrypi.local
      edgekit host clean --inventory boards.toml
    """


@subcommand(command, "clean", short_help="Remove the cache of benchmarks from boards.", chosen=HostOptions)
def clean_command(out: Output, chosen: HostOptions) -> None:
    """Remove the cache of benchmarks from boards: environments, models, sources. Deployed releases are kept.

    \b
    Examples:
      edgekit host clean --host pi@raspberrypi.local
    """
    from edgekit.remote.parallel import run_on_hosts
    from edgekit.remote.prepare import clean

    results = run_on_hosts(chosen.required_hosts(), clean, chosen.parallel)
    freed_kib = {done.host.label: done.result for done in results if done.result is not None}
    for label, size_kib in freed_kib.items():
        out.say(f"{label}: {size_kib / 1024:.1f} MiB removed")
    failed = {done.host.label: done.error for done in results if done.error is not None}
    out.result({"removed_kib": freed_kib, "failed": failed})
    raise_failures(results)
