"""Every script starts: it imports what it uses and prints its help; some run on tiny data in tests of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = sorted(path for path in BENCHMARKS.rglob("*.py") if "__main__" in path.read_text())
# They run inside the emulated system, or in the environment of another program.
GUESTS = ("guest.py", "guest_logits.py", "first_result.py", "peers_worker.py")


# Imports once what most scripts import, and runs each script in a copy of the process.
STARTER = """
import os, runpy, sys
import cv2, edgekit.export.run, onnxruntime, torch
for script in sys.argv[1:]:
    sys.stdout.flush()
    if os.fork() == 0:
        sys.argv = [script, "--help"]
        sys.path.insert(0, os.path.dirname(script))
        runpy.run_path(script, run_name="__main__")
        sys.exit()
    if os.wait()[1] != 0:
        sys.exit(f"{script} --help failed")
"""


@pytest.mark.slow
def test_every_script_starts() -> None:
    scripts = [path for path in SCRIPTS if path.name not in GUESTS]
    done = subprocess.run([sys.executable, "-c", STARTER, *scripts], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.lower().count("usage:") == len(scripts)
