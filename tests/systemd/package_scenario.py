"""Installs, upgrades and purges the Debian package below a booted systemd, and prints each step as a JSON line.

Usage: `package_scenario.py OLD.deb NEW.deb MODEL`. boot.sh runs it, and test_package_systemd.py checks the output.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
from stage import PATIENCE_S, print_step, serve

SETTINGS = Path("/etc/edgekit")
WANTED = Path("/etc/systemd/system/multi-user.target.wants/edgekit@door.service")
RESULTS = Path("/var/lib/edgekit/door/door.jsonl")
MODEL = Path("/opt/tiny.onnx")
# This machine lacks the packages that the command needs, so a service has the Python of the test and its packages, at
# places which the service's user may read.
PLACES = {sys.base_prefix: "/opt/python", os.environ["PYTHONPATH"]: "/opt/source", cv2.__path__[0] + "/..": "/opt/site"}
QUICK = f"""[Service]
ExecStart=
ExecStart=/opt/python/bin/python3.{sys.version_info.minor} -m edgekit.cli run --config /etc/edgekit/%i.toml
Environment=PYTHONPATH=/opt/source:/opt/site LD_LIBRARY_PATH=/opt/python/lib
BindReadOnlyPaths={" ".join(f"{Path(source).resolve()}:{target}" for source, target in PLACES.items())}
RestartSec=0.2
RestartSteps=0
RestartMaxDelaySec=infinity
"""


def dpkg(*words: str) -> None:
    done = subprocess.run(["dpkg", "--force-depends", *words], capture_output=True, text=True, timeout=PATIENCE_S)
    print_step("dpkg", words=words, code=done.returncode, output=done.stdout + done.stderr)


def show(name: str) -> dict[str, str]:
    words = ["systemctl", "show", f"edgekit@{name}.service", "--property=ActiveState,SubState,MainPID"]
    output = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return dict(line.partition("=")[::2] for line in output.splitlines())


def until(name: str, holds: Callable[[dict[str, str]], bool]) -> dict[str, str]:
    end_s = time.monotonic() + PATIENCE_S
    while not holds(found := show(name)) and time.monotonic() < end_s:
        time.sleep(0.1)
    return found


def install_rival(step: str, name: str, *run_options: str) -> None:
    words = [sys.executable, "-m", "edgekit.cli", "service", "install", "--name", name, "--run-as", "root", "--"]
    done = subprocess.run([*words, *run_options], capture_output=True, text=True, timeout=PATIENCE_S, cwd="/opt")
    print_step(step, code=done.returncode, errors=done.stderr)


def main(old: str, new: str, model: str) -> None:
    shutil.copy(model, MODEL)
    for place in PLACES.values():
        Path(place).mkdir()
    dpkg("--install", old)
    quick = Path("/etc/systemd/system/edgekit@.service.d/quick.conf")
    quick.parent.mkdir(parents=True)
    quick.write_text(QUICK)
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    common = f'model = "{MODEL}"\ndetector = "none"\n'
    (SETTINGS / "door.toml").write_text(f'{common}source = "{serve()}"\njsonl = "door.jsonl"\n')
    (SETTINGS / "gate.toml").write_text(f'{common}camera = "/dev/video9"\n')

    enabled_by_itself = WANTED.exists()
    subprocess.run(["systemctl", "enable", "--now", "edgekit@door"], timeout=PATIENCE_S)
    running = until("door", lambda found: found["ActiveState"] == "active" and RESULTS.exists())
    if running["ActiveState"] != "active":
        subprocess.run(["journalctl", "--unit=edgekit@door", "--no-pager", "--lines=20"])
    user = pwd.getpwuid(Path(f"/proc/{running['MainPID']}").stat().st_uid).pw_name
    print_step("running", **running, user=user, wrote=RESULTS.exists(), enabled_by_itself=enabled_by_itself)

    subprocess.run(["systemctl", "start", "--no-block", "edgekit@gate"], check=True)
    until("gate", lambda found: found["SubState"] == "auto-restart")
    install_rival("same name", "door", "--source", "demo")
    install_rival("same camera", "other", "--camera")
    install_rival("another camera", "other", "--camera", "/dev/video8")
    subprocess.run(["systemctl", "stop", "other"], check=True)

    dpkg("--install", new)
    upgraded = until("door", lambda found: found["ActiveState"] == "active" and found["MainPID"] != running["MainPID"])
    gate = show("gate")["ActiveState"]
    print_step("upgraded", **upgraded, before=running["MainPID"], settings=(SETTINGS / "door.toml").exists(), gate=gate)
    dpkg("--remove", "edgekit")
    print_step("removed", **show("door"), settings=(SETTINGS / "door.toml").exists(), results=RESULTS.exists())
    dpkg("--purge", "edgekit")
    print_step("purged", settings=SETTINGS.exists(), enabled=WANTED.is_symlink(), results=RESULTS.exists())


if __name__ == "__main__":
    main(*sys.argv[1:])
