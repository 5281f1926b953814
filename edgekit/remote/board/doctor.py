"""Runs on the board: the doctor. It also works on a 32-bit system and with a full disk."""

from __future__ import annotations

import sys
from typing import Any

from edgekit.doctor.bundle import own_names
from edgekit.doctor.examination import as_document, examine
from edgekit.doctor.probe import Probe
from edgekit.remote.messages import report_progress


def main(plan: dict[str, Any]) -> dict[str, Any]:
    """Run the checks on this machine and return the findings; with `capture` also the files and tool outputs read."""
    probe = Probe()
    findings = examine(probe, lambda done, total: report_progress("examining", done, total))
    captured = {"seen": probe.seen, "names": own_names()} if plan["capture"] else {}
    return {**as_document(findings), "python": sys.executable, **captured}
