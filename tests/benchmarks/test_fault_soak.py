"""The endurance test with faults: a short real run passes, and the verdict reports each failure."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekit.device.health.sampler import ProcessUse
from edgekit.errors import EXIT_GATE, EXIT_OK
from tests.conftest import MOSQUITTO

pytest.importorskip("av", reason="no PyAV here: pip install av")
SCRIPT = Path(__file__).parents[2] / "benchmarks/device/fault_soak.py"


@pytest.fixture
def script(load):
    return load("fault_soak")


def verdict(script, *, written: int = 3, stored: str = "abc", growth_mib: float = 0.0, **changes):
    seen = script.Seen([(float(second), ProcessUse(100 + growth_mib * second, 110, 9, 7)) for second in range(2)], 10)
    account = {"produced": 3, "written": written, "dropped": {}, "waiting": 3 - written}
    plan = script.Plan(frames=10, disk_fills=1, pulls=1, restart_s=60, warm_up_s=0, camera_fps=50, viewers=1)
    outputs, there = {"jsonl": account, "mqtt": account}, {"jsonl": Counter(stored), "mqtt": Counter("abc"[:written])}
    arguments = {"exit_code": EXIT_OK, "outputs": outputs, "stored": there, "messages": ""} | changes
    return script.judge(seen, plan=plan, **arguments)["failed"]


def test_equal_counts_pass(script):
    assert verdict(script) == []


@pytest.mark.parametrize(
    ("changes", "failure"),
    [
        ({"stored": "ab"}, "jsonl: 3 written, but 2 are there"),
        ({"stored": "abcc"}, "jsonl: 1 are there more than once, such as c"),
        ({"growth_mib": 6.0}, "memory grew by 6.3 MB, more than 5"),
        ({"exit_code": 74}, "exit code 74 instead of 0"),
        ({"outputs": {}}, "there is no account of jsonl"),
    ],
)
def test_what_is_wrong_is_found(script, changes, failure):
    assert failure in verdict(script, **changes)


@pytest.mark.slow
@pytest.mark.skipif(MOSQUITTO is None, reason="no mosquitto here: apt install mosquitto")
def test_a_short_run_with_each_fault_loses_nothing_without_a_count(tmp_path, tiny_model):
    clip = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"mp4v"), 20.0, (64, 48))
    for colour in ((0, 0, 250), (0, 250, 0), (250, 0, 0)):
        for _ in range(20):
            writer.write(np.full((48, 64, 3), colour, np.uint8))
    writer.release()
    report = tmp_path / "report.json"
    times = ("--frames", "300", "--camera-fps", "25", "--disk-fills", "1", "--pulls", "1", "--restart-s", "8")
    run = ("--", "--model", tiny_model, "--detector", "none", "--smooth", "0")
    command = [sys.executable, SCRIPT, "--clip", clip, *times, "--warm-up", "1000", "-o", report, *run]
    done = subprocess.run(command, capture_output=True, text=True)
    if "the small disk needs root" in done.stderr:
        pytest.skip("no small disk: mounting needs root")
    assert done.returncode in (EXIT_OK, EXIT_GATE), done.stderr
    found = json.loads(report.read_text())["verdict"]
    assert found["failed"] == []
    assert (found["faults"]["disk full"], found["faults"]["camera pulled"]) == (1, 1)
    assert found["faults"]["broker restarted"] >= 1
    assert found["outputs"]["mqtt"]["written"] > 0
    assert found["images_viewed"] > 0
