"""Deploys releases over ssh to a machine with a booted systemd, and prints each step as a JSON line.

Usage: `deploy_scenario.py FOLDER PORT MODEL...`. boot.sh runs it. test_deploy_systemd.py writes the files of an sshd
into FOLDER and checks the output.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from stage import PATIENCE_S, print_step, serve

NAME = "edgekit"
# A part of the program that a deploy runs on the board.
LOADER = b"class _SentModules("


class Machine:
    """The board, and the commands that reach it over ssh."""

    def __init__(self, folder: Path, port: str) -> None:
        self.folder = folder
        known = ["-F", "none", "-o", f"UserKnownHostsFile={folder / 'known_hosts'}", "-o", "IdentitiesOnly=yes"]
        options = [f"--ssh-option={word}" for word in known]
        self.way = ["--host", "127.0.0.1", "--port", port, "--identity", str(folder / "id"), "--system", *options]
        self.home = folder / "home"
        self.root = self.home / ".local/share/edgekit/deploy" / NAME

    def edgekit(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "edgekit.cli", *words, *self.way]

    def deploy(self, model: str, settings: str) -> list[str]:
        words = ["deploy", model, "--config", str(self.folder / settings), "--settle", "1", "--no-install"]
        return self.edgekit(*words)

    def status(self) -> dict[str, Any]:
        command = [sys.executable, "-m", "edgekit.cli", "service", "status", "--name", NAME, "--system", "--json"]
        result: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True).stdout)
        return result

    def current(self) -> str | None:
        """Return the name of the current release, or None."""
        link = self.root / "current"
        return link.readlink().name if link.is_symlink() else None

    def runs(self) -> str | None:
        """Return the hash of the model that the service runs, or None."""
        pid = self.status()["pid"]
        if pid is None:
            return None
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return (Path(os.fsdecode(words[words.index(b"--model") + 1])).resolve().parent.name).partition("-")[2]

    def print_step(self, step: str, done: subprocess.CompletedProcess[str]) -> None:
        found = self.status()
        said = done.stdout + done.stderr
        print_step(step, code=done.returncode, said=said, current=self.current(), runs=self.runs(), **found)


def call(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=10 * PATIENCE_S)


def until(condition: Callable[[], object]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition() and time.monotonic() < end_s:
        time.sleep(0.1)


def main(folder: Path, port: str, models: list[str]) -> None:
    one, two, three = models
    machine = Machine(folder, port)
    (folder / "good.toml").write_text(f'source = "{serve()}"\ndetector = "none"\njsonl = "results.jsonl"\n')
    (folder / "bad.toml").write_text('source = "missing.mp4"\ndetector = "none"\n')
    Path("/run/sshd").mkdir(mode=0o755)
    quick = Path(f"/etc/systemd/system/{NAME}.service.d/quick.conf")
    quick.parent.mkdir()
    quick.write_text("[Service]\nRestartSec=0.2\nRestartSteps=0\nRestartMaxDelaySec=infinity\n")
    daemon = ["/usr/sbin/sshd", "-D", "-e", "-f", folder / "sshd_config"]
    with subprocess.Popen(daemon, stderr=subprocess.DEVNULL) as sshd:
        until(lambda: call(machine.edgekit("releases")).returncode == 0)
        machine.print_step("first", call(machine.deploy(one, "good.toml")))
        machine.print_step("second", call(machine.deploy(two, "good.toml")))
        machine.print_step("bad", call(machine.deploy(three, "bad.toml")))

        # All processes of a deploy are killed when the link has been renamed and before the deploy reports it. Then the
        # service is killed, and systemd starts it as at the next boot.
        before = machine.current()
        with subprocess.Popen(machine.deploy(three, "good.toml"), stdout=subprocess.DEVNULL) as deploying:
            until(lambda: machine.current() != before)
            for process in Path("/proc").glob("[0-9]*"):
                with suppress(OSError):
                    if LOADER in (process / "cmdline").read_bytes():
                        os.kill(int(process.name), signal.SIGKILL)
            deploying.kill()
        subprocess.run(["systemctl", "kill", "--signal", "KILL", f"{NAME}.service"], check=True)
        until(lambda: machine.status()["state"] == "running" and machine.runs())
        done = call(machine.edgekit("releases", "--json"))
        print_step("cut", cut=json.loads(done.stdout)["boards"][0]["cut"], runs=machine.runs(), **machine.status())

        machine.print_step("rollback", call(machine.edgekit("rollback")))
        done = call(machine.edgekit("releases", "--json"))
        print_step("after", cut=json.loads(done.stdout)["boards"][0]["cut"])
        sshd.terminate()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
