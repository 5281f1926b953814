"""`edgekit doctor`: checks this machine or boards, and names the command that repairs each fault."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from edgekit.cli.boards import BoardReporter, raise_failures
from edgekit.cli.command import command as edgekit_command
from edgekit.cli.output import Output, one_line, progress_bar, updater
from edgekit.errors import EdgekitError
from edgekit.remote.hosts import HostOptions
from edgekit.text import counted

if TYPE_CHECKING:
    from edgekit.doctor.probe import Finding
    from edgekit.remote.doctor import Examined
    from edgekit.remote.hosts import Host
    from edgekit.remote.parallel import HostResult

_SCHEMA = "edgekit.doctor-hosts/1.0"
_SIGNS = {"ok": "✓", "warning": "!", "fault": "✗", "unknown": "?"}


@edgekit_command("doctor", short_help="Check a machine and show how to repair it.", chosen=HostOptions)
def command(out: Output, chosen: HostOptions) -> None:
    """Check board, system, libraries, cameras, memory, temperature and power, and print how to repair each fault.

    Each library is imported in a process of its own. A crash is therefore reported with the name of the library. The
    exit code is 1 if there are faults; warnings do not count.

    With --host, boards are checked. A board needs only python3: the checks are sent over SSH and write nothing on the
    board. If a board cannot be checked, the exit code is 4.

    \b
    Examples:
      edgekit doctor
      edgekit doctor --json
      edgekit doctor --host pi@raspberrypi.local
      edgekit doctor --inventory boards.toml
    """
    from edgekit.doctor.examination import as_document, examine, faults
    from edgekit.doctor.probe import Probe

    if hosts := chosen.hosts():
        _check_hosts(out, chosen, hosts)
        return
    with progress_bar(out) as progress:
        findings = examine(Probe(), updater(progress, "checking"))
    show_findings(out, findings)
    out.result(as_document(findings))
    found = faults(findings)
    if found:
        raise EdgekitError(f"{counted(len(found), 'fault')}: {', '.join(finding.check for finding in found)}")


def _check_hosts(out: Output, chosen: HostOptions, hosts: Sequence[Host]) -> None:
    """Check boards and print their findings.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed; the findings of the finished boards are printed before.
        HostError: A board could not be checked; the findings of the others are printed before.
        EdgekitError: A board has faults.
    """
    from edgekit.doctor.examination import faults
    from edgekit.remote.doctor import examine_host
    from edgekit.remote.parallel import run_on_hosts

    with BoardReporter(out, len(hosts)) as reporter:
        work = partial(examine_host, reporter=reporter)
        examined = run_on_hosts(hosts, work, chosen.parallel, reporter.finished)
    found = {done.host.label: done.result for done in examined if done.result is not None}
    for label, result in found.items():
        out.say(f"{label}, with {result.python}")
        show_findings(out, result.findings)
    out.result({"schema": _SCHEMA, "hosts": [_as_document(done) for done in examined]})
    raise_failures(examined)
    checks = {label: [each.check for each in faults(result.findings)] for label, result in found.items()}
    texts = [f"{label}: {', '.join(names)}" for label, names in checks.items() if names]
    if texts:
        raise EdgekitError(f"{counted(sum(map(len, checks.values())), 'fault')}: {'; '.join(texts)}")


def _as_document(done: HostResult[Examined]) -> dict[str, Any]:
    from edgekit.doctor.examination import as_document

    findings = {} if done.result is None else {**as_document(done.result.findings), "python": done.result.python}
    return {"label": done.host.label, "error": done.error, **findings}


def show_findings(out: Output, findings: Sequence[Finding]) -> None:
    """Print one line per finding: a sign, the check and the text, bold for a fault; and below it the cure."""
    check_width = max((len(one_line(finding.check)) for finding in findings), default=0)
    text_column = 1 + 2 + check_width + 2  # after the sign, the check, and two gaps
    for finding in findings:
        line = f"{_SIGNS[finding.status]}  {one_line(finding.check).ljust(check_width)}  {one_line(finding.text)}"
        out.say(line, indent=text_column, bold=finding.status == "fault")
        if finding.cure:
            out.say(f"{' ' * text_column}→ {one_line(finding.cure)}", indent=text_column + 2)
