"""`edgekit doctor`: what works on this machine or on boards, what does not, and the command that mends it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.boards.hosts import HostChoice, host_options, no_install_option
from edgekit.cli.output import Output, common_options, one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgekit.doctor.probe import Finding

_SIGNS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "fault": ("✗", "bold red"), "unknown": ("?", "dim")}


@click.command("doctor", short_help="Tell what works on a machine, and what mends the rest.")
@click.option("--bundle", type=click.Path(path_type=Path), metavar="FILE", help="Write a .tar.gz for a bug report.")
@host_options
@no_install_option
@common_options
def command(out: Output, bundle: Path | None, chosen: HostChoice) -> None:
    """Look at the board, its system and libraries, cameras, memory, heat and power, and say what to do.

    Every library is imported in a process of its own, so that one that crashes is named. The exit code is 1 if there
    are faults; warnings are none. The bundle holds the findings and all that they were found in, without names of
    users, hosts and networks, serial numbers and addresses: look at it before you send it.

    With --host it looks at boards, which need nothing but python3: the doctor is sent along and writes nothing there.
    --no-install asks the edgekit that the board has instead. Of several boards each gets a bundle, FILE-LABEL.tar.gz.
    The exit code is 4 if a board could not be looked at.

    \b
    Examples:
      edgekit doctor
      edgekit doctor --json
      edgekit doctor --bundle report.tar.gz
      edgekit doctor --host pi@raspberrypi.local
      edgekit doctor --inventory boards.toml --bundle report.tar.gz
    """
    from edgekit.cli.progress import counted, progress_bar
    from edgekit.doctor.bundle import own_names, write_bundle
    from edgekit.doctor.examination import as_document, examine, faults
    from edgekit.doctor.probe import Probe
    from edgekit.errors import EdgekitError, InputError

    if bundle is not None and not bundle.name.endswith(".tar.gz"):
        raise InputError(f"bundle '{bundle}' must end in .tar.gz")
    if chosen.hosts:
        from edgekit.cli.boards.doctor import doctor_on_hosts

        if bundle is not None and not chosen.install:
            raise click.UsageError("--bundle needs the doctor that is sent: leave out --no-install")
        doctor_on_hosts(out, chosen, bundle)
        return
    probe = Probe()
    with progress_bar(out) as progress:
        findings = examine(probe, counted(progress, "looking"))
    document = as_document(findings)
    show_findings(out, findings)
    if bundle is not None:
        write_bundle(bundle, document, probe.seen, own_names())
        out.say(f"bundle: {bundle}")
    out.result(document)
    wrong = faults(findings)
    if wrong:
        raise EdgekitError(f"{count_of(wrong)}: {', '.join(finding.check for finding in wrong)}")


def count_of(faults: Sequence[Finding]) -> str:
    """Return how many faults these are, in words."""
    return f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"


def show_findings(out: Output, findings: Sequence[Finding]) -> None:
    """Print findings on one screen: a sign, what was looked at, what is said, and the cure below."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column("", no_wrap=True)
    table.add_column("check", no_wrap=True)
    table.add_column("", overflow="fold")
    for finding in findings:
        sign, style = _SIGNS[finding.status]
        said = Text(one_line(finding.text))
        if finding.cure:
            said.append(f"\n→ {one_line(finding.cure)}", style="bold")
        table.add_row(Text(sign, style=style), Text(one_line(finding.check)), said)
    out.console.print(table)
