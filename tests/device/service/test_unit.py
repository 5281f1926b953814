"""The text of the systemd unit, and its verification by systemd."""

from __future__ import annotations

import os
import shutil
import subprocess
from itertools import accumulate
from pathlib import Path

import pytest

from edgekit.device.service import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    MAX_STARTS,
    PAUSE_STEPS,
    STARTS_WINDOW_S,
    ServiceSpec,
    unit_text,
)
from edgekit.errors import InputError

COMMAND = ("/bin/echo", "a b", "100%", "$HOME", 'q"uo\\te', "é")


def make_spec(folder: Path, **changes) -> ServiceSpec:
    return ServiceSpec(**{"name": "edgekit", "command": COMMAND, "folder": folder, "run_as": "daemon"} | changes)


def values(text: str, key: str) -> list[str]:
    return [line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{key}=")]


def test_the_unit_is_watched_restarted_and_shut_in(tmp_path):
    text = unit_text(make_spec(tmp_path), "system", groups=["video", "render"], udevadm="/usr/bin/udevadm")
    for key, value in {
        "Type": "notify",
        "WatchdogSec": "60",
        "Restart": "on-failure",
        "RestartPreventExitStatus": "2",
        "SupplementaryGroups": "video render",
        "User": "daemon",
        "ProtectSystem": "strict",
        "MemoryMax": "50%",
        "ReadWritePaths": f'"{tmp_path}"',
        "StateDirectory": "edgekit/edgekit",
        "ExecStart": ':"/bin/echo" "a b" "100%%" "$HOME" "q\\"uo\\\\te" "é"',
        "ExecStartPre": '-"/usr/bin/udevadm" settle --timeout=30',
        "RestartMaxDelaySec": "60",
    }.items():
        assert values(text, key) == [value], key
    assert "MALLOC_ARENA_MAX=2" in values(text, "Environment")
    # A cache that was cleared does not prevent the start. An older systemd has one pause.
    text = unit_text(make_spec(tmp_path), "system", cache=tmp_path / "the cache", systemd_version=252)
    assert values(text, "ReadWritePaths") == [f'"{tmp_path}" "-{tmp_path}/the cache"']
    assert values(text, "RestartSteps") == []
    assert float(values(text, "RestartSec")[0]) * MAX_STARTS >= STARTS_WINDOW_S


def test_the_growing_pauses_stay_below_the_limit_of_starts():
    # systemd's formula for RestartSteps=: geometric steps.
    growth = (LONGEST_PAUSE_S / FIRST_PAUSE_S) ** (1 / PAUSE_STEPS)
    pauses_s = [FIRST_PAUSE_S * growth ** min(number, PAUSE_STEPS) for number in range(100)]
    assert [round(pause_s) for pause_s in pauses_s[:7]] == [5, 8, 14, 22, 37, 60, 60]
    starts_s = [0.0, *accumulate(pauses_s)]
    assert max(sum(0 <= later - first < STARTS_WINDOW_S for later in starts_s) for first in starts_s) < MAX_STARTS


def test_a_users_unit_has_no_setting_that_needs_root(tmp_path):
    text = unit_text(make_spec(tmp_path, run_as=None), "user", groups=["video"], udevadm=None)
    for key in ("User", "SupplementaryGroups", "ProtectSystem", "StateDirectory", "CapabilityBoundingSet"):
        assert values(text, key) == [], key
    assert values(text, "WantedBy") == ["default.target"]


@pytest.mark.parametrize("scope", ["system", "user"])
@pytest.mark.parametrize("folder_name", ["plain", "a b%c$d\"e\\f'g"])
def test_systemd_takes_the_unit(tmp_path, scope, folder_name):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze: apt-get install systemd")
    folder = tmp_path / folder_name
    folder.mkdir()
    spec = make_spec(folder, run_as=None if scope == "user" else "daemon", environment={"NAME": "50% of $X"})
    path = tmp_path / "edgekit.service"
    path.write_text(unit_text(spec, scope, groups=["video"], udevadm=shutil.which("udevadm")))
    assert verify(path, scope, tmp_path) == ""
    path.write_text(path.read_text().replace("WatchdogSec", "WatchdogSecs"))
    assert "WatchdogSecs" in verify(path, scope, tmp_path)


def verify(path: Path, scope: str, runtime: Path) -> str:
    """Return the messages of `systemd-analyze verify` about a unit."""
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(runtime), "SYSTEMD_LOG_COLOR": "0"}
    command = ["systemd-analyze", f"--{scope}", "--recursive-errors=no", "verify", path]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 or done.stderr
    return done.stderr


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "../x"},
        {"name": "-x"},
        {"command": ("/bin/echo", "a\nExecStartPre=/bin/rm")},
        {"environment": {"A": "b\nc"}},
        {"folder": Path("missing")},
    ],
)
def test_odd_names_line_breaks_and_a_missing_folder_are_refused(tmp_path, changes):
    with pytest.raises(InputError):
        make_spec(**{"folder": tmp_path} | changes)
