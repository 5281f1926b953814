"""Runs on the board: the doctor. It also works on a 32-bit system and with a full disk."""

from __future__ import annotations

import sys
from typing import Any

from edgekit.doctor.examination import as_document, examine
from edgekit.doctor.probe import Probe
from edgekit.remote.board.loader import report_progress


def main(plan: dict[str, Any]) -> dict[str, Any]:
    """Run the checks on this machine and return the findings; the plan is empty."""
    del plan
    findings = examine(Probe(), lambda done, total: report_progress("examining", done, total))
    return {**as_document(findings), "python": sys.executable}
