"""Every script starts: it imports what it uses and prints its help; some run on tiny data in tests of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = sorted(path for path in BENCHMARKS.rglob("*.py") if "__main__" in path.read_text())
# They run inside the emulated system.
GUESTS = ("guest.py", "guest_logits.py", "first_result.py")


@pytest.mark.parametrize("script", [path for path in SCRIPTS if path.name not in GUESTS], ids=lambda path: path.stem)
def test_a_script_starts(script: Path) -> None:
    done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower()


@pytest.mark.slow
def test_the_pipeline_is_compared_on_a_short_clip(shared: Path) -> None:
    yunet = shared / "data/yunet/face_detection_yunet_2026may.onnx"
    command = [sys.executable, BENCHMARKS / "device/pipeline.py", "--detector-model", yunet, "--frames", "4"]
    done = subprocess.run([*command, "--rounds", "3", "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = [each["name"] for each in json.loads(done.stdout)["comparisons"]]
    assert names[:2] == ["pipeline / classic loop", "pipeline / plain loop"]
