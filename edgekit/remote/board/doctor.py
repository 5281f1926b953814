"""Runs on the board: the doctor. It also works on a 32-bit system and with a full disk.

It prints two lines of JSON: the findings, then the path of the Python and, if requested, what the checks have read.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from edgekit.doctor.bundle import own_names
from edgekit.doctor.examination import as_document, examine
from edgekit.doctor.probe import Probe
from edgekit.remote.progress import progress_line


def main(plan: dict[str, Any]) -> int:
    """Run the checks on this machine and print the findings; with `capture` also the files and tool outputs read."""
    probe, capture = Probe(), plan["capture"]
    findings = examine(probe, _print_progress)
    print(json.dumps(as_document(findings)))
    captured = {"seen": probe.seen, "names": own_names()} if capture else {}
    print(json.dumps({"python": sys.executable, **captured}))
    return 0


def _print_progress(done: int, total: int | None) -> None:
    print(progress_line("examining", done, total), file=sys.stderr, flush=True)
