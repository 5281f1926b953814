"""`edgekit doctor`: checks this machine or boards, and names the command that repairs each fault."""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.cli.boards.hosts import HostChoice, host_options, no_install_option
from edgekit.cli.output import Output, common_options


@click.command("doctor", short_help="Check a machine and show how to repair it.")
@click.option("--bundle", type=click.Path(path_type=Path), metavar="FILE", help="Write a .tar.gz for a bug report.")
@host_options
@no_install_option
@common_options
def command(out: Output, bundle: Path | None, chosen: HostChoice) -> None:
    """Check board, system, libraries, cameras, memory, temperature and power, and print how to repair each fault.

    Each library is imported in a process of its own, so that a crash is reported with the library's name. The exit code
    is 1 if there are faults; warnings do not count. The bundle contains the findings and the files and outputs they are
    based on. Names of users, hosts and networks, serial numbers and addresses are removed: check it before you send it.

    With --host it checks boards, which need only python3: the checks are sent over SSH and write nothing there.
    --no-install uses the board's own edgekit instead. With several boards each gets a bundle, FILE-LABEL.tar.gz. The
    exit code is 4 if a board could not be checked.

    \b
    Examples:
      edgekit doctor
      edgekit doctor --json
      edgekit doctor --bundle report.tar.gz
      edgekit doctor --host pi@raspberrypi.local
      edgekit doctor --inventory boards.toml --bundle report.tar.gz
    """
    from edgekit.cli.progress import counted, progress_bar
    from edgekit.cli.render.doctor import fault_count, show_findings
    from edgekit.doctor.bundle import own_names, write_bundle
    from edgekit.doctor.examination import as_document, examine, faults
    from edgekit.doctor.probe import Probe
    from edgekit.errors import EdgekitError, InputError

    if bundle is not None and not bundle.name.endswith(".tar.gz"):
        raise InputError(f"bundle '{bundle}' must end in .tar.gz")
    if chosen.hosts:
        from edgekit.cli.boards.doctor import doctor_on_hosts

        if bundle is not None and not chosen.install:
            raise click.UsageError("--bundle needs the checks that are sent to the board: leave out --no-install")
        doctor_on_hosts(out, chosen, bundle)
        return
    probe = Probe()
    with progress_bar(out) as progress:
        findings = examine(probe, counted(progress, "checking"))
    document = as_document(findings)
    show_findings(out, findings)
    if bundle is not None:
        write_bundle(bundle, document, probe.seen, own_names())
        out.say(f"bundle: {bundle}")
    out.result(document)
    found = faults(findings)
    if found:
        raise EdgekitError(f"{fault_count(found)}: {', '.join(finding.check for finding in found)}")
