"""Runs on the board: examines it with the doctor's own modules, on a 32-bit system or a full disk too.

It prints one line of JSON with the findings and one with what they were found in, as far as that is wanted.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from edgekit.doctor.bundle import own_names
from edgekit.doctor.examination import as_document, examine
from edgekit.doctor.probe import Probe
from edgekit.remote.progress import progress_line


def main(wanted: dict[str, Any]) -> int:
    """Examine this machine; `capture` says whether what the findings were found in is wanted."""
    probe = Probe()
    findings = examine(probe, _show)
    print(json.dumps(as_document(findings)))
    captured = {"seen": probe.seen, "names": own_names()} if wanted["capture"] else {}
    print(json.dumps({"python": sys.executable, **captured}))
    return 0


def _show(done: int, total: int | None) -> None:
    print(progress_line("looking", done, total), file=sys.stderr, flush=True)
