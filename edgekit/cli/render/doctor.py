"""Findings of the doctor on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.cli.output import Output, one_line
from edgekit.text import GOOD_COLOUR, WARNING_COLOUR

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgekit.doctor.probe import Finding

_SIGNS = {
    "ok": ("✓", GOOD_COLOUR),
    "warning": ("!", f"bold {WARNING_COLOUR}"),
    "fault": ("✗", "bold red"),
    "unknown": ("?", "dim"),
}


def fault_count(faults: Sequence[Finding]) -> str:
    """Return the number of faults as text: `1 fault`, `2 faults`."""
    return f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"


def show_findings(out: Output, findings: Sequence[Finding]) -> None:
    """Print one row per finding: a sign, the check, the text, and the cure below it."""
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
    out.console.print(table)
