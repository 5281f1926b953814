"""Too little memory and circular links: one error line and the right exit code."""

from __future__ import annotations

import subprocess
import sys

from edgekit.errors import EXIT_TEMPORARY

RUN = ("run", "--source", "demo", "--detector", "none", "--max-frames", "1")


def test_too_little_memory_during_a_run_is_one_line_and_temporary() -> None:
    before = """
import numpy as np
from edgekit.device.engines import classifier
classifier.to_input = lambda *_: np.empty(1 << 46, np.uint8)
"""
    code = f"{before}\nfrom edgekit.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *RUN], capture_output=True, text=True)
    assert done.returncode == EXIT_TEMPORARY
    assert "error: out of memory" in done.stderr.splitlines()[-1]
