"""The service below a real systemd, which is booted in separate namespaces."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from .lab import boot


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, dict[str, Any]]:
    """The output of each step of service_scenario.py, by the name of the step."""
    folder = tmp_path_factory.mktemp("lab")
    work = folder / "work"
    work.mkdir()
    lines = boot(folder, "service_scenario.py", work, shutil.copy(tiny_model, folder / "tiny.onnx"))
    return {f"install {line['name']}" if line["step"] == "install" else line["step"]: line for line in lines}


def test_it_runs_once_frames_are_processed_and_says_how_many(steps):
    running = steps["running"]
    assert (running["state"], running["manager"], running["starts_at_boot"]) == ("running", "systemd", True)
    assert "frames" in running["text"]
    assert running["groups"], "the groups of cameras"
    assert running["wrote"], "blanks, % and $ in an argument arrive as they are"
    assert running["buffers"], "events wait for the broker in a file, though homes are read-only"


def test_killed_it_starts_again(steps):
    assert (steps["killed"]["state"], steps["killed"]["restarts"]) == ("running", 1)
    assert steps["killed"]["pid"] != steps["running"]["pid"]


def test_frozen_it_is_found_out_by_the_watchdog(steps):
    assert (steps["frozen"]["state"], steps["frozen"]["restarts"]) == ("running", 2)
    assert "Watchdog timeout" in steps["logs"]["text"]


def test_restarted_by_hand_it_is_another_process_and_its_failures_are_forgotten(steps):
    again = steps["restarted"]
    assert (again["code"], again["state"]) == (0, "running"), again["errors"]
    assert again["pid"] != again["before"]
    assert again["restarts"] == 0


def test_stopped_it_ends_by_itself(steps):
    assert steps["stopped"]["state"] == "stopped"
    assert "Deactivated successfully" in steps["logs"]["text"]


def test_bad_settings_are_not_tried_again(steps):
    assert (steps["bad"]["state"], steps["bad"]["restarts"]) == ("failed", 0)
    assert steps["bad"]["last_exit"] == "exit code 2"


def test_while_another_run_has_its_output_it_is_tried_again_and_then_runs(steps):
    assert steps["in use"]["restarts"] >= 2
    assert steps["free again"]["state"] == "running"


def test_it_cannot_write_where_it_was_not_allowed_to(steps):
    assert steps["outside"]["last_exit"] == "exit code 74"
    assert not steps["outside"]["wrote"]


def test_a_unit_of_somebody_else_is_left_alone(steps):
    assert steps["install other"]["code"] == 2
    assert "was not written by edgekit" in steps["install other"]["errors"]
    assert steps["restart other"]["code"] == 2
    assert (steps["removed other"]["code"], steps["removed other"]["there"]) == (2, True)


def test_removed_nothing_is_left(steps):
    assert (steps["removed"]["state"], steps["removed"]["there"]) == ("not installed", False)
