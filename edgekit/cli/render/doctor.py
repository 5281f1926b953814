"""Findings of the doctor on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.cli.output import Output, one_line
from edgekit.text import GOOD_COLOUR, WARNING_COLOUR

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from edgekit.doctor.probe import Finding

_SIGNS = {
    "ok": ("✓", GOOD_COLOUR),
    "warning": ("!", f"bold {WARNING_COLOUR}"),
    "fault": ("✗", "bold red"),
    "unknown": ("?", "dim"),
}


def show_findings(out: Output, findings: Sequence[Finding]) -> None:
    """Print one row per finding: a sign, the check, the text, and the cure below it.

    Lines are wrapped on a terminal only, so that paths, addresses and commands can be copied from a file or a pipe.
    """
    if out.console.is_terminal:
        out.show(_table(findings))
        return
    column = max((len(one_line(finding.check)) for finding in findings), default=0)
    for finding in findings:
        sign, _ = _SIGNS[finding.status]
        out.say(f"{sign}  {one_line(finding.check):<{column}}  {one_line(finding.text)}")
        if finding.cure:
            out.say(f"{'':{column + 5}}→ {one_line(finding.cure)}")


def _table(findings: Sequence[Finding]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column("", no_wrap=True)
    table.add_column("check", no_wrap=True)
    table.add_column("", overflow="fold")
    for finding in findings:
        sign, style = _SIGNS[finding.status]
        text = Text(one_line(finding.text))
        if finding.cure:
            text.append(f"\n→ {one_line(finding.cure)}", style="bold")
        table.add_row(Text(sign, style=style), Text(one_line(finding.check)), text)
    return table
