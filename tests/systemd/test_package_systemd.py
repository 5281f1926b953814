"""The services of the Debian package below a real systemd: edgekit@NAME, its upgrade and its end."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.debian.machine import build_package, package_of_version

from .lab import boot


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, dict[str, Any]]:
    """The output of each step of package_scenario.py, by the name of the step; those of dpkg by its first option."""
    for tool in ("dpkg", "py3compile"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool}: this is not Debian")
    folder = tmp_path_factory.mktemp("lab")
    (folder / "packages").mkdir()
    _, package = build_package(folder / "packages")
    old = package_of_version(package, "0.1~rc1", folder)
    lines = boot(folder, "package_scenario.py", old, package, shutil.copy(tiny_model, folder / "tiny.onnx"))
    for line in lines:
        assert line["step"] != "dpkg" or line["code"] == 0, line["output"]
    return {line["step"]: line for line in lines}


def test_a_service_runs_as_its_own_user_and_writes_to_its_own_folder(steps):
    running = steps["running"]
    assert (running["ActiveState"], running["user"], running["wrote"]) == ("active", "edgekit", True)
    assert not running["enabled_by_itself"]


def test_a_service_of_the_same_name_or_camera_is_not_installed_beside_it(steps):
    assert steps["same name"]["code"] == steps["same camera"]["code"] == 2
    assert "edgekit@door" in steps["same name"]["errors"]
    assert "edgekit@gate" in steps["same camera"]["errors"]
    assert steps["another camera"]["code"] == 0, steps["another camera"]["errors"]


def test_an_upgrade_restarts_it_with_its_settings(steps):
    assert (steps["upgraded"]["ActiveState"], steps["upgraded"]["settings"]) == ("active", True)
    assert steps["upgraded"]["MainPID"] != steps["upgraded"]["before"]


def test_an_upgrade_succeeds_while_a_service_waits_for_its_camera(steps):
    # The fixture requires that dpkg succeeds.
    assert steps["upgraded"]["gate"] == "activating"


def test_removed_it_is_stopped_and_its_settings_stay(steps):
    assert steps["removed"]["ActiveState"] in ("inactive", "failed")
    assert (steps["removed"]["settings"], steps["removed"]["results"]) == (True, True)


def test_purged_its_settings_are_gone_and_its_results_stay(steps):
    purged = steps["purged"]
    assert (purged["settings"], purged["enabled"], purged["results"]) == (False, False, True)
