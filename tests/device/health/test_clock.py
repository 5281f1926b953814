"""When the system clock counts as synchronised, with and without systemd-timesyncd and a hardware clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.device.health import Clock


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """The folder of the running service below the root `tmp_path`."""
    folder = tmp_path / "run/systemd/timesync"
    folder.mkdir(parents=True)
    return folder


def test_a_pi_waits_for_the_network_time_and_then_stays_synchronised(tmp_path, service):
    clock = Clock(tmp_path)
    assert not clock.is_synchronised()
    (service / "synchronized").touch()
    assert clock.is_synchronised()
    (service / "synchronized").unlink()
    assert clock.is_synchronised()


def test_a_machine_without_the_service_is_not_judged(tmp_path):
    assert Clock(tmp_path).is_synchronised()


@pytest.mark.parametrize(("hardware_s", "is_right"), [("1900000000", True), ("37", False), ("", False)])
@pytest.mark.usefixtures("service")
def test_a_hardware_clock_counts_if_its_time_is_plausible(tmp_path, hardware_s, is_right):
    (tmp_path / "sys/class/rtc/rtc0").mkdir(parents=True)
    (tmp_path / "sys/class/rtc/rtc0/since_epoch").write_text(f"{hardware_s}\n")
    assert Clock(tmp_path).is_synchronised() == is_right
