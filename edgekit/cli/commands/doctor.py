"""`edgekit doctor`: checks this machine or boards, and names the command that repairs each fault."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from edgekit.cli.command import command as edgekit_command
from edgekit.cli.output import Output
from edgekit.options import Options, option
from edgekit.remote.host_options import InstallingHostOptions
from edgekit.text import counted


@dataclass(frozen=True, kw_only=True)
class DoctorOptions(Options):
    """What the doctor writes."""

    bundle: Path | None = option("--bundle", "Write a .tar.gz for a bug report.", metavar="FILE")


@edgekit_command(
    "doctor",
    short_help="Check a machine and show how to repair it.",
    options=DoctorOptions,
    chosen=InstallingHostOptions,
)
def command(out: Output, options: DoctorOptions, chosen: InstallingHostOptions) -> None:
    """Check board, system, libraries, cameras, memory, temperature and power, and print how to repair each fault.

    Each library is imported in a process of its own. A crash is therefore reported with the name of the library. The
    exit code is 1 if there are faults; warnings do not count. The bundle of --bundle contains the results of the
    checks, and the files and outputs that were checked. Names of users, hosts and networks, serial numbers and
    addresses are removed. Read the bundle before you send it.

    With --host, boards are checked. A board needs only python3: the checks are sent over SSH and write nothing on the
    board. With --no-install, the board's own edgekit runs the checks. If there are several boards, each board has a
    bundle of its own, FILE-LABEL.tar.gz. If a board cannot be checked, the exit code is 4.

    \b
    Examples:
      edgekit doctor
      edgekit doctor --json
      edgekit doctor --bundle report.tar.gz
      edgekit doctor --host pi@raspberrypi.local
      edgekit doctor --inventory boards.toml --bundle report.tar.gz
    """
    from edgekit.cli.progress import progress_bar, updater
    from edgekit.cli.render.doctor import show_findings
    from edgekit.doctor.bundle import own_names, write_bundle
    from edgekit.doctor.examination import as_document, examine, faults
    from edgekit.doctor.probe import Probe
    from edgekit.errors import EdgekitError, InputError

    bundle = options.bundle
    if bundle is not None and not bundle.name.endswith(".tar.gz"):
        raise InputError(f"bundle '{bundle}' must end in .tar.gz")
    if hosts := chosen.hosts():
        from edgekit.cli.boards.doctor import doctor_on_hosts

        if bundle is not None and chosen.no_install:
            raise click.UsageError("--bundle needs the checks that are sent to the board: leave out --no-install")
        doctor_on_hosts(out, chosen, hosts, bundle)
        return
    probe = Probe()
    with progress_bar(out) as progress:
        findings = examine(probe, updater(progress, "checking"))
    document = as_document(findings)
    show_findings(out, findings)
    out.result(document)
    if bundle is not None:  # after the document, because an error of the disk must not lose the findings
        write_bundle(bundle, document, probe.seen, own_names())
        out.say(f"bundle: {bundle}")
    found = faults(findings)
    if found:
        raise EdgekitError(f"{counted(len(found), 'fault')}: {', '.join(finding.check for finding in found)}")
