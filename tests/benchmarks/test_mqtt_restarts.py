"""The stress test of MQTT events: a small run passes, and the verdict reports missing events."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import MOSQUITTO

SCRIPT = Path(__file__).parents[2] / "benchmarks/device/mqtt_restarts.py"


@pytest.mark.skipif(MOSQUITTO is None, reason="no mosquitto here: apt install mosquitto")
def test_every_event_of_a_small_run_arrives(tmp_path):
    command = [sys.executable, str(SCRIPT), "--frames", "300", "--restart-s", "0.5", "-o", str(tmp_path / "r.json")]
    subprocess.run(command, check=True, capture_output=True)
    verdict = json.loads((tmp_path / "r.json").read_text())["verdict"]
    assert (verdict["missing"], verdict["failed"], verdict["account"]["written"]) == (0, [], 300)
    assert verdict["restarts"] > 0


def test_missing_disordered_and_uncounted_events_are_found(load):
    account = {"produced": 3, "written": 3, "dropped": {}, "waiting": 0}
    judge = load("mqtt_restarts")._judge
    assert judge(3, 1.0, 1, [], account, ["0", "1", "1", "2"]).failed == ()
    assert judge(3, 1.0, 1, [], account, ["0", "1", "1", "2"]).received_twice == 1
    assert judge(3, 1.0, 1, [], account, ["0", "2"]).failed == ("1 events are missing",)
    assert judge(3, 1.0, 1, [], account, ["1", "0", "2"]).failed == ("events arrived out of order",)
    assert "is not 3 written" in judge(3, 1.0, 1, [], account | {"written": 2}, ["0", "1", "2"]).failed[0]
