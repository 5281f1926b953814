"""Releases on the emulated board, with a stand-in for systemd: a good release runs, a bad release is rolled back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit.device.teach.teach import teach
from tests.device.teach.shapes import write_pictures
from tests.fake_systemd import programs

from .board import VirtualPi
from .conftest import EdgekitRun

# More images than the test can read.
ENDLESS = ("pictures", 1_000_000, (64, 48))


def settings(path: Path, url: str) -> Path:
    path.write_text(f'source = "{url}"\ndetector = "none"\n')
    return path


@pytest.fixture
def taught(tmp_path: Path) -> Path:
    """A model that `teach` wrote."""
    model = tmp_path / "taught.onnx"
    teach(pictures=write_pictures(tmp_path / "things"), output=model, image_size_px=96, notify=print)
    return model


@pytest.mark.usefixtures("cached_environment")
def test_a_release_runs_on_the_board_and_a_bad_one_gives_way_to_it(
    fresh_pi: VirtualPi, edgekit: EdgekitRun, taught: Path, play: Callable[..., Any], tmp_path: Path
) -> None:
    stream, dead = play([ENDLESS]), play([ENDLESS], clients=0)
    folder = "/var/tmp/systemd"
    for name, text in programs(folder, "/usr/bin/python3").items():
        fresh_pi.plant(f"{folder}/{name}", text)
        fresh_pi.plant(f"usr/local/bin/{name}", text)
    fresh_pi.path(folder).chmod(0o777)
    with fresh_pi:
        good = settings(tmp_path / "good.toml", stream.url)
        done = edgekit("deploy", taught, "--config", good, "--settle", 1, *fresh_pi.arguments)
        assert done.returncode == 0, done.stderr
        assert stream.served >= 1

        bad = settings(tmp_path / "bad.toml", dead.url)
        done = edgekit("deploy", taught, "--config", bad, "--settle", 1, *fresh_pi.arguments)
        assert done.returncode == 4, done.stdout
        assert dead.served >= 1  # the bad release was tried

        served = stream.served
        assert served >= 2  # the first release runs again
        done = edgekit("releases", "--json", *fresh_pi.arguments)
        assert done.returncode == 0, done.stderr
        (board,) = json.loads(done.stdout)["boards"]
        first, second = board["releases"]
        assert (first["failed"], second["failed"]) == (False, True)
        assert board["current"] == first["release"]
        assert board["service"]["state"] == "running"
