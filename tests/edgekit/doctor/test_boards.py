"""The doctor's findings on good and bad boards; the head of each fixture states its origin."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.doctor.examination import CHECKS, examine, faults
from edgekit.doctor.probe import Finding, Probe
from edgekit.downloads import YUNET
from edgekit.install_hint import install_command

from .conftest import interpreter

Replay = Callable[..., Probe]


def findings(probe: Probe) -> dict[str, Finding]:
    return {finding.check: finding for finding in examine(probe)}


@pytest.mark.parametrize("name", ["doctor-pi3bplus-trixie-good", "doctor-pi5-trixie-good"])
def test_a_good_board_has_nothing_amiss(replay: Replay, name: str) -> None:
    found = findings(replay(name))
    assert {finding.status for finding in found.values()} == {"ok"}, found
    assert not any(finding.cure for finding in found.values())
    assert len(found) == len(CHECKS) - 2  # no camera in use, and no release


def test_the_findings_of_a_good_board(replay: Replay) -> None:
    found = findings(replay("doctor-pi3bplus-trixie-good"))
    assert found["board"].text == "Raspberry Pi 3 Model B Plus Rev 1.3, 4 processors, aarch64, 906 MiB"
    assert found["camera"].text == "libcamera finds imx219 (3280x2464)"
    assert found["memory"].text == "646 of 906 MiB available, CMA 196 of 256 MiB free"
    assert found["clock"].text == "governor ondemand, now 1400 MHz, up to 1400"
    assert found["service"].text == "active (running), 0 restarts"
    assert found["power"].text == "never throttled, never under-voltage since boot"


def test_each_fault_of_a_bad_board_has_a_cure(replay: Replay) -> None:
    found = findings(replay("doctor-pi3bplus-trixie-bad"))
    assert [(check, finding.status) for check, finding in found.items() if finding.status != "ok"] == [
        ("camera in use", "warning"),
        ("groups", "warning"),
        ("disk", "fault"),
        ("clock", "warning"),
        ("temperature", "warning"),
        ("power", "fault"),
        ("time", "warning"),
        ("service", "fault"),
    ]
    assert all(finding.cure for finding in found.values() if finding.status != "ok")
    assert found["v4l2"].text == "HD Pro Webcam C920 (/dev/video1)"
    assert found["camera in use"].text == "used by motion (pid 812) /dev/video1"
    assert found["disk"].text == "20 of 29,186 MiB free, read-only: full"
    assert "1.2 instead of 1.4 GHz" in found["temperature"].text
    assert found["power"].text == "now: soft temperature limit; since boot: soft temperature limit"
    assert found["service"].text == "failed (failed), 5 restarts: exit-code, exit code 75"
    assert found["service"].cure == "sudo journalctl -u edgekit -n 50"


def test_of_the_services_of_debians_package_the_worst_is_reported(replay: Replay) -> None:
    properties = "--property=LoadState,ActiveState,SubState,Result,NRestarts,ExecMainStatus"
    listed = "edgekit@door.service loaded active running\nedgekit@gate.service loaded activating auto-restart\n"
    states = {
        "edgekit": "LoadState=not-found\n",
        "edgekit@door": "LoadState=loaded\nActiveState=active\nSubState=running\n",
    }
    states["edgekit@gate"] = (
        "LoadState=loaded\nActiveState=activating\nSubState=auto-restart\nResult=exit-code\nNRestarts=3\nExecMainStatus=75\n"
    )
    found = findings(
        replay(
            "doctor-pi3bplus-trixie-good",
            **{f"$ systemctl show {unit} {properties}": state for unit, state in states.items()},
            **{"$ systemctl list-units --all --plain --no-legend edgekit@*.service": listed},
        )
    )["service"]
    assert found.status == "fault"
    assert found.text == "edgekit@gate: activating (auto-restart), 3 restarts: exit-code, exit code 75"
    assert found.cure == "sudo journalctl -u edgekit@gate -n 50"


def test_a_board_without_systemd_is_named(replay: Replay) -> None:
    properties = "--property=LoadState,ActiveState,SubState,Result,NRestarts,ExecMainStatus"
    for state, status in (("offline\n", "unknown"), ("degraded\n", "ok")):
        printed = {f"systemctl show edgekit {properties}": "", "systemctl is-system-running": state}
        probe = replay("doctor-pi3bplus-trixie-good", **{f"$ {command}": text for command, text in printed.items()})
        assert findings(probe)["service"].status == status


def test_a_missing_detector_file_is_named_with_its_place(replay: Replay) -> None:
    probe = replay("doctor-pi3bplus-trixie-good")
    path = "/home/pi/.cache/edgekit/" + YUNET.name
    (probe.root / path.removeprefix("/")).unlink()
    found = findings(probe)["detector"]
    assert (found.status, faults([found])) == ("warning", [])
    assert path in found.text
    assert found.cure == f"run edgekit once with internet, or copy {YUNET.url} to '{path}'"


def test_an_illegal_instruction_is_named_with_the_version_to_take(replay: Replay) -> None:
    found = findings(replay("doctor-pi4b-bookworm-illegal-instruction"))["onnxruntime"]
    assert found.status == "fault"
    assert found.text == "1.21.0 crashes with an illegal instruction: it was built for another processor"
    assert found.cure == "pip install 'onnxruntime>=1.20,!=1.21.0,!=1.27.0'"


def test_a_version_with_wrong_results_is_a_warning(replay: Replay) -> None:
    board = replay("doctor-pi3bplus-trixie-good", **{"$ import onnxruntime": "onnxruntime 1.27.0\nimported\n"})
    found = findings(board)["onnxruntime"]
    assert (found.status, found.cure) == ("warning", "pip install 'onnxruntime>=1.20,!=1.21.0,!=1.27.0'")
    assert "wrong convolutions on processors with SME (microsoft/onnxruntime#28571)" in found.text


def test_numpy_2_beside_the_systems_picamera2_and_two_opencvs(replay: Replay) -> None:
    found = findings(replay("doctor-pi4b-bookworm-numpy2"))
    assert found["picamera2"].text == "simplejpeg was built for another numpy than 2.0.1"
    assert found["picamera2"].cure == "pip install 'numpy<2'"
    assert (found["onnxruntime"].text, found["onnxruntime"].cure) == ("not installed", install_command("device"))
    assert found["opencv"].text == "opencv-python-headless and opencv-python overwrite each other's files"
    assert (found["opencv"].cure or "").startswith("pip uninstall -y opencv-python-headless opencv-python && ")
    assert "legacy camera system" in found["camera"].text


def test_a_pi_5_without_a_camera(replay: Replay) -> None:
    found = findings(replay("doctor-pi5-bookworm-no-camera"))
    assert (found["camera"].status, found["camera"].text) == ("warning", "libcamera finds no camera")
    assert "ribbon cable" in (found["camera"].cure or "")
    assert found["power"].status == "warning"
    assert "under-voltage" in found["power"].text
    assert "power supply" in (found["power"].cure or "")
    assert found["opencv"].text == "a build with windows, on a system without libGL"


def test_a_vcgencmd_that_fails_is_not_missing(replay: Replay) -> None:
    printed = "Can't open device file: /dev/vcio\nTry creating a device file with: sudo mknod /dev/vcio c 100 0\n"
    found = findings(replay("doctor-pi5-trixie-good", **{"$ vcgencmd get_throttled (exit 255)": printed}))["power"]
    assert (found.status, found.text) == ("unknown", "vcgencmd failed: Can't open device file: /dev/vcio")
    assert found.cure == "sudo usermod -aG video $USER, then log in again"


def test_a_zero_2_w_short_of_contiguous_memory(replay: Replay) -> None:
    found = findings(replay("doctor-zero2w-trixie-cma"))
    assert found["memory"].text == "228 of 416 MiB available, CMA 12 of 256 MiB free: low for camera buffers"
    assert "Qt conflicts" in found["opencv"].text
    assert found["python"].status == "warning"
    assert "--system-site-packages" in (found["picamera2"].cure or "")
    assert found["temperature"].status == "ok"  # only the 3B+ has the limit at 60 °C


def test_a_picamera2_that_an_environment_hides_is_found(replay: Replay) -> None:
    probe = replay("doctor-zero2w-trixie-cma")
    assert findings(probe)["picamera2"].text.startswith("not installed")
    (probe.root / "usr/lib/python3/dist-packages/picamera2").mkdir(parents=True)
    found = findings(probe)["picamera2"]
    assert found.text == "installed, but hidden by this virtual environment"
    assert "apt" not in (found.cure or "")


def test_an_environment_of_the_systems_python_is_opened_in_place(replay: Replay, tmp_path: Path) -> None:
    probe = replay("doctor-zero2w-trixie-cma")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "tool"], check=True)
    probe.environment = replace(probe.environment, prefix=str(tmp_path / "tool"), base_prefix="/usr")
    cure = findings(probe)["python"].cure
    assert cure is not None
    assert str(tmp_path) in cure  # run no other command
    subprocess.run(cure, shell=True, check=True)
    assert "include-system-site-packages = true" in (tmp_path / "tool/pyvenv.cfg").read_text()


def test_a_zero_2_w_without_dma_heap(replay: Replay) -> None:
    found = findings(replay("doctor-zero2w-bookworm-dmaheap"))["camera"]
    assert (found.status, found.text) == ("warning", "libcamera cannot allocate buffers (dma-heap)")


def test_a_32_bit_system_is_a_fault(replay: Replay) -> None:
    found = findings(replay("pi3b-32bit", interpreter=interpreter("armv7l", 32)))
    assert (found["system"].status, found["system"].cure) == ("fault", "install the 64-bit Raspberry Pi OS")
    assert found["python"].status == "fault"
    assert found["power"].text.startswith("now: under-voltage (weak power supply or cable), throttled")


def test_a_check_that_stumbles_hides_no_other(replay: Replay) -> None:
    tool = "$ systemctl show edgekit --property=LoadState,ActiveState,SubState,Result,NRestarts,ExecMainStatus"
    board = replay("doctor-pi3bplus-trixie-good", **{tool: "LoadState=loaded\nActiveState=active\nNRestarts=many\n"})
    found = findings(board)
    assert found["service"].status == "unknown"
    assert "the check failed: ValueError" in found["service"].text
    assert faults(list(found.values())) == []
