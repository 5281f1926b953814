"""Findings of the doctor on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.cli.output import Output, one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgekit.doctor.probe import Finding

_SIGNS = {"ok": "✓", "warning": "!", "fault": "✗", "unknown": "?"}


def show_findings(out: Output, findings: Sequence[Finding]) -> None:
    """Print one line per finding: a sign, the check and the text, bold for a fault; and below it the cure."""
    column = max((len(one_line(finding.check)) for finding in findings), default=0)
    for finding in findings:
        line = f"{_SIGNS[finding.status]}  {one_line(finding.check):<{column}}  {one_line(finding.text)}"
        out.say(line, indent=column + 5, bold=finding.status == "fault")
        if finding.cure:
            out.say(f"{'':{column + 5}}→ {one_line(finding.cure)}", indent=column + 7)
