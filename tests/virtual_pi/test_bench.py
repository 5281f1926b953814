"""From a fresh board to a report and back to a clean one, on the emulated board; times there are no board's times."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from .board import VirtualPi
from .conftest import EdgekitRun

# The least work: what is tested is the road, not the speed.
QUICK = ("--seconds", "0.01", "--processes", "1", "--threads", "1", "--cool-down", "0", "--allow-throttled")
CACHE = "home/pi/.cache/edgekit/board"


def test_a_changed_host_key_is_refused(fresh_pi: VirtualPi, edgekit: EdgekitRun, tiny_model: Path) -> None:
    fresh_pi.new_host_key()
    with fresh_pi:
        done = edgekit("bench", tiny_model, *QUICK, "--no-pipeline", *fresh_pi.arguments)
    assert (done.returncode, done.stdout) == (4, "")
    assert "its host key has changed" in done.stderr
    assert not fresh_pi.path("home/pi/.cache").exists()


def test_a_32_bit_system_is_refused_before_anything_is_installed(
    fresh_pi: VirtualPi, edgekit: EdgekitRun, tiny_model: Path
) -> None:
    fresh_pi.plant("usr/local/bin/getconf", '#!/bin/sh\n[ "$1" = LONG_BIT ] && echo 32 || exec /usr/bin/getconf "$@"\n')
    with fresh_pi:
        done = edgekit("bench", tiny_model, *QUICK, "--no-pipeline", *fresh_pi.arguments)
    assert done.returncode == 4
    assert "32-bit system" in done.stderr
    assert "install the 64-bit Raspberry Pi OS" in done.stderr
    assert not fresh_pi.path("home/pi/.cache").exists()


@pytest.fixture(scope="module")
def model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a name that a shell would take apart."""
    path = tmp_path_factory.mktemp("models") / "it's; $(touch planted) odd.onnx"
    shutil.copy(tiny_model, path)
    return path


@pytest.fixture(scope="module")
def first(
    pi: VirtualPi, edgekit: EdgekitRun, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[subprocess.CompletedProcess[str], Path]:
    """The first benchmark on a board that has nothing yet, with a pipeline over a clip."""
    import cv2
    import numpy as np

    clip = tmp_path_factory.mktemp("clip") / "one frame.png"
    cv2.imwrite(str(clip), np.zeros((48, 64, 3), np.uint8))
    report = clip.with_name("report.json")
    arguments = [*QUICK, *pi.arguments, "--source", clip, "--detector", "none", "--note", "fan=it's $(off)"]
    done = edgekit("bench", model, *arguments, "-o", report, "--html", report.with_suffix(".html"))
    if "cannot be downloaded" in done.stderr:
        pytest.skip(f"no wheels for the board: {done.stderr.strip()}")
    return done, report


def test_one_command_leads_from_a_fresh_board_to_a_report(
    first: tuple[subprocess.CompletedProcess[str], Path], model: Path, suite: str
) -> None:
    done, path = first
    assert done.returncode == 0, done.stderr
    report = json.loads(path.read_text())
    (board,) = report["boards"]
    assert board["label"] == "pi@127.0.0.1"
    assert board["board"]["model"] == "Raspberry Pi 3 Model B Plus Rev 1.3"
    assert board["board"]["architecture"] == "aarch64"
    assert board["board"]["cpu"] == "Cortex-A53"
    assert board["board"]["os_release"].endswith(f"({suite})")
    assert [entry["name"] for entry in board["models"]] == [str(model)]
    assert {cell["kind"] for cell in board["cells"]} == {"inference", "classifier", "per-frame", "loop"}
    assert board["notes"] == {"fan": "it's $(off)"}
    (host,) = report["hosts"]
    assert host["error"] is None
    assert host["sent_bytes"] > 50e6


def test_nothing_measured_there_passes_for_a_pis_speed(first: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    done, path = first
    assert json.loads(path.read_text())["boards"][0]["board"]["virtualization"] == "emulator"
    assert "EMULATED" in done.stdout
    assert "EMULATED" in path.with_suffix(".html").read_text().upper()


def test_names_ran_nothing_there(first: tuple[subprocess.CompletedProcess[str], Path], pi: VirtualPi) -> None:
    assert first[0].returncode == 0
    assert list(pi.path("").rglob("planted")) == []


def test_the_second_run_sends_nothing_marks_throttling_and_a_dead_board_spoils_nothing(
    first: tuple[subprocess.CompletedProcess[str], Path],
    pi: VirtualPi,
    edgekit: EdgekitRun,
    model: Path,
    tmp_path: Path,
) -> None:
    assert first[0].returncode == 0
    inventory = tmp_path / "boards.toml"
    inventory.write_text(
        f'[[host]]\nhost = "pi@127.0.0.1"\nlabel = "living"\nport = {pi.port}\n'
        '[[host]]\nhost = "pi@127.0.0.1"\nlabel = "dead"\nport = 1\n'
    )
    options = [f"--ssh-option={option}" for option in pi.host.ssh_options]
    arguments = [*QUICK, "--no-pipeline", "--inventory", inventory, "--identity", pi.host.identity, *options]
    (pi.sys / "throttled").write_text("0x50005\n")
    try:
        done = edgekit("bench", model, *arguments, "--json")
    finally:
        (pi.sys / "throttled").write_text("0x0\n")
    assert done.returncode == 4
    assert "1 of 2 boards failed: dead: the port is closed" in done.stderr
    report = json.loads(done.stdout)
    (board,) = report["boards"]
    assert board["label"] == "living"
    assert all("throttled" in cell["marks"] for cell in board["cells"])
    assert [(host["label"], host["sent_bytes"], bool(host["error"])) for host in report["hosts"]] == [
        ("living", 0, False),
        ("dead", 0, True),
    ]


def test_clean_removes_everything(
    first: tuple[subprocess.CompletedProcess[str], Path], pi: VirtualPi, edgekit: EdgekitRun
) -> None:
    assert first[0].returncode == 0
    assert pi.path(CACHE).exists()
    done = edgekit("host", "clean", *pi.arguments)
    assert done.returncode == 0, done.stderr
    assert not pi.path(CACHE).exists()
