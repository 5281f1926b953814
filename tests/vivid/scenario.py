"""Runs edgekit with the guest's camera, unplugs it and plugs it in again, and prints each step as a JSON line.

Usage: `scenario.py MODEL FOLDER`. tests/guest.py runs it, and test_camera.py checks the output.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tests.waiting import wait_until

NODE = Path("/dev/video0")
DRIVER = Path("/sys/bus/platform/drivers/vivid")
DEVICE = "vivid.0"
SIZE = "640x360"
# Long, because the guest's processor is emulated.
PATIENCE_S = 300


def words(*options: object) -> list[str]:
    return [sys.executable, "-m", "edgekit.cli", *map(str, options)]


def print_step(step: str, **facts: Any) -> None:
    print(json.dumps({"step": step, **facts}), flush=True)


def run_step(step: str, *options: object) -> None:
    done = subprocess.run(words(*options), capture_output=True, text=True, timeout=PATIENCE_S)
    document = json.loads(done.stdout) if done.stdout.startswith("{") else done.stdout
    print_step(step, code=done.returncode, document=document, said=done.stderr)


def main(model: str, folder: Path) -> None:
    run = ("run", "--model", model, "--detector", "none", "--json")
    run_step("cameras", "cameras", "--json")
    run_step("yuyv", *run, "--camera", NODE, "--camera-size", SIZE, "--control", "format=YUYV", "--max-frames", 10)
    run_step("mjpg", *run, "--camera", "--control", "format=MJPG", "--max-frames", 3)
    run_step("no usb", *run, "--camera", "usb", "--max-frames", 3)
    unplugged(run, folder / "r.jsonl")


def unplugged(run: tuple[str, ...], jsonl: Path) -> None:
    """Unplug the camera during a run, and plug it in again."""
    command = words(*run, "--camera", NODE, "--camera-size", SIZE, "--jsonl", jsonl)
    said: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        reader = threading.Thread(target=lambda: said.extend(process.stderr or ()), daemon=True)
        reader.start()

        def until(holds: Any) -> None:
            wait_until(holds, alive=lambda: process.poll() is None, failure=lambda: said, patience_s=PATIENCE_S)

        def lines() -> int:
            return jsonl.read_text().count("\n") if jsonl.exists() else 0

        until(lambda: lines() >= 5)
        run_step("busy", "cameras", "--json")
        before = time.monotonic()
        (DRIVER / "unbind").write_text(DEVICE)
        until(lambda: any("reopening it" in line for line in said))
        told_after_s = time.monotonic() - before
        gone = not NODE.exists()
        (DRIVER / "bind").write_text(DEVICE)
        until(lambda: any("was reopened" in line for line in said))
        there = lines()
        until(lambda: lines() >= there + 5)
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        document = json.loads(process.stdout.read())
        code = process.wait(PATIENCE_S)
        reader.join()
    sequences = [json.loads(line)["sequence"] for line in jsonl.read_text().splitlines()]
    print_step(
        "unplugged", code=code, document=document, said=said, sequences=sequences, gone=gone, told_after_s=told_after_s
    )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
