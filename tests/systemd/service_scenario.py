"""Installs, kills, restarts and removes services below a booted systemd, and prints each step as a JSON line.

Usage: `service_scenario.py FOLDER MODEL`. boot.sh runs it, and test_service_systemd.py checks the output.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stage import PATIENCE_S, print_step, serve

UNITS = Path("/etc/systemd/system")
# Replaces the default 5 s until a restart and the default 60 s of the watchdog.
QUICK = "[Service]\nRestartSec=0.2\nRestartSteps=0\nRestartMaxDelaySec=infinity\nWatchdogSec=4\n"


def edgekit(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgekit.cli", "service", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)


def status(name: str) -> dict[str, Any]:
    return json.loads(edgekit("status", "--name", name, "--json").stdout)


def until(name: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    end_s = time.monotonic() + PATIENCE_S
    while not condition(found := status(name)) and time.monotonic() < end_s:
        time.sleep(0.1)
    return found


def install(name: str, folder: Path, *run_options: str) -> subprocess.CompletedProcess[str]:
    place = [
        "--name",
        name,
        "--run-as",
        "root",
        "--folder",
        str(folder),
        "--env",
        f"PYTHONPATH={os.environ['PYTHONPATH']}",
    ]
    done = edgekit("install", *place, "--", *run_options)
    print_step("install", name=name, code=done.returncode, errors=done.stderr)
    return done


def main(folder: Path, model: str) -> None:
    stream = serve()
    # The service "outside" fails; it keeps the default pause before a restart, so that its failure can be read.
    for name in ("camera", "bad", "shared"):
        (UNITS / f"{name}.service.d").mkdir()
        (UNITS / f"{name}.service.d/quick.conf").write_text(QUICK)
    common = ("--model", model, "--detector", "none")

    odd_name = "a b%h$HOME.jsonl"
    # There is no broker, so the events wait in the state folder of the service.
    nobody = "mqtt://127.0.0.1:9"
    install("camera", folder, *common, "--source", stream, "--jsonl", odd_name, "--mqtt", nobody)
    running = until("camera", lambda found: found["state"] == "running" and "frames/s" in (found["text"] or ""))
    end_s = time.monotonic() + PATIENCE_S
    while not (folder / odd_name).exists() and time.monotonic() < end_s:
        time.sleep(0.1)
    groups = re.search(r"^Groups:\t(.*)$", Path(f"/proc/{running['pid']}/status").read_text(), re.MULTILINE)
    print_step(
        "running",
        **running,
        groups=groups and groups.group(1).split(),
        wrote=(folder / odd_name).exists(),
        buffers=[path.name for path in Path("/var/lib/edgekit/camera").glob("mqtt-*")],
    )

    os.kill(running["pid"], signal.SIGKILL)
    again = until("camera", lambda found: found["state"] == "running" and found["restarts"] == 1)
    print_step("killed", **again)

    os.kill(again["pid"], signal.SIGSTOP)
    found = until("camera", lambda now: now["state"] == "running" and now["restarts"] == 2)
    print_step("frozen", **found)

    done = edgekit("restart", "--name", "camera")
    fresh = until("camera", lambda now: now["state"] == "running" and now["pid"] not in (None, found["pid"]))
    print_step("restarted", code=done.returncode, errors=done.stderr, before=found["pid"], **fresh)

    subprocess.run(["systemctl", "stop", "camera.service"], check=True)
    print_step("stopped", **status("camera"))
    print_step("logs", text=edgekit("logs", "--name", "camera", "--lines", "1000", "--json").stdout)

    install("bad", folder, "--source", "gone.mp4")
    print_step("bad", **until("bad", lambda found: found["state"] == "failed"))

    by_hand = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "edgekit.cli",
            "run",
            *common,
            "--source",
            stream,
            "--jsonl",
            str(folder / "shared.jsonl"),
        ],
        stdout=subprocess.DEVNULL,
    )
    while not (folder / "shared.jsonl").exists():
        time.sleep(0.1)
    install("shared", folder, *common, "--source", stream, "--jsonl", "shared.jsonl")
    print_step("in use", **until("shared", lambda found: found["restarts"] >= 2))
    by_hand.kill()
    print_step("free again", **until("shared", lambda found: found["state"] == "running"))

    install("outside", folder, *common, "--source", "demo", "--jsonl", "/etc/outside.jsonl")
    found = until("outside", lambda found: found["last_exit"] is not None)
    print_step("outside", **found, wrote=Path("/etc/outside.jsonl").exists())

    (UNITS / "other.service").write_text("[Service]\nExecStart=/bin/true\n")
    install("other", folder, "--source", "demo")
    print_step("restart other", code=edgekit("restart", "--name", "other").returncode)
    print_step(
        "removed other", code=edgekit("remove", "--name", "other").returncode, there=(UNITS / "other.service").exists()
    )

    for name in ("camera", "bad", "shared", "outside"):
        edgekit("remove", "--name", name)
    print_step("removed", **status("camera"), there=(UNITS / "camera.service").exists())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
