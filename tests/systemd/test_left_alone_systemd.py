"""Three simulated days of a service that is left alone, below a real systemd with a real broker."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from .lab import boot

DAYS = 3  # as in left_alone_scenario.py


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> list[dict[str, Any]]:
    """The output of left_alone_scenario.py."""
    if not (shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")):
        pytest.skip("no mosquitto: apt-get install mosquitto")
    folder = tmp_path_factory.mktemp("lab")
    work = folder / "work"
    work.mkdir()
    return boot(folder, "left_alone_scenario.py", work, shutil.copy(tiny_model, folder / "tiny.onnx"))


def steps(lines: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["step"] == name]


def test_a_service_whose_files_another_run_has_tries_again_until_it_gets_them(lines):
    assert not steps(lines, "not reached")
    assert len(steps(lines, "day")) == DAYS  # each day ends with records and events of the service
    for locked in steps(lines, "locked"):
        assert locked["last_exit"] == "exit code 75"
        assert locked["restarts"] >= 1
    assert {day["by_hand"] for day in steps(lines, "day")} == {0}


def test_losses_and_free_space_are_published(lines):
    for day in steps(lines, "day"):
        assert day["dropped"] > 0
        assert day["disk_free_mib"] is not None


def test_nothing_that_was_stored_is_lost_or_damaged(lines):
    (stored,) = steps(lines, "stored")
    assert stored["records"] > 100
    assert (stored["headers"], len(stored["row_lengths"])) == (1, 1)
    # The kill, the restart after the lock, and the run by hand of each day begin a video, and so does a full disk.
    assert len(stored["videos"]) >= 3 * DAYS
    # A kill in the first second of a video leaves no frame of it.
    assert sum(frames == 0 for frames in stored["videos"].values()) <= DAYS
    assert stored["snapshots"] == stored["snapshot_files"] > 0


def test_no_event_is_missing_and_only_a_kill_or_an_outage_sends_one_again(lines):
    (stored,) = steps(lines, "stored")
    assert stored["events"] > 10 * DAYS
    assert stored["missing"] == {}
    assert stored["twice"] <= 2 * DAYS


def test_the_service_ends_by_itself(lines):
    (stopped,) = steps(lines, "stopped")
    assert stopped["state"] == "stopped"
