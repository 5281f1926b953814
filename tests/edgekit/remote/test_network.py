"""Two boards in network namespaces: the link to one board is cut during a benchmark of both."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

import edgekit
from tests.waiting import wait_until

from .conftest import Sshd, serve

SOURCE = Path(edgekit.__file__).parents[1]
PATIENCE_S = 300
PORT = 2222
# The edgekit of a board measures only after the file `go on` exists, so that the test can cut the link before.
OWN = f"""#!/bin/sh
echo 'edgekit-job ["starting", 0, 1]' >&2
touch "$HOME/started"
while ! [ -e "$HOME/go on" ]; do sleep 0.05; done
exec env PYTHONPATH="{SOURCE}" "{sys.executable}" -m edgekit.cli "$@"
"""


@dataclass(frozen=True)
class Board:
    """A board in its own network namespace; `link` is this machine's end of the cable."""

    sshd: Sshd
    link: str

    def has_started(self) -> bool:
        return (self.sshd.home / "started").exists()

    def go_on(self) -> None:
        (self.sshd.home / "go on").touch()

    def cut(self) -> None:
        ip("link", "set", self.link, "down")


def ip(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture
def boards(tmp_path: Path) -> Iterator[list[Board]]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    with ExitStack() as stack:
        yield [_board(stack, tmp_path, number) for number in range(2)]


def _board(stack: ExitStack, folder: Path, number: int) -> Board:
    # Addresses of RFC 2544, which are not routed; they depend on the process id, for parallel test runs.
    name = f"ek{os.getpid() % 100_000}b{number}"
    subnet = f"198.18.{os.getpid() % 250}"
    near, far = (f"{subnet}.{4 * number + end}" for end in (1, 2))
    try:
        ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network namespaces here: {getattr(error, 'stderr', error)}")
    stack.callback(_remove, name)
    try:
        ip("link", "add", f"{name}n", "type", "veth", "peer", "name", f"{name}f", "netns", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no virtual cable here: {error.stderr}")
    ip("address", "add", f"{near}/30", "dev", f"{name}n")
    ip("link", "set", f"{name}n", "up")
    for words in (("address", "add", f"{far}/30", "dev", f"{name}f"), ("link", "set", f"{name}f", "up")):
        ip("-n", name, *words)
    place = folder / name
    place.mkdir()
    sshd = stack.enter_context(serve(place, far, PORT, ["ip", "netns", "exec", name]))
    own = sshd.home / ".local/bin/edgekit"
    own.parent.mkdir(parents=True)
    own.write_text(OWN)
    own.chmod(0o755)
    return Board(sshd, f"{name}n")


def _remove(name: str) -> None:
    # Commands over the cut connection are still running.
    for process in ip("netns", "pids", name).stdout.split():
        with suppress(ProcessLookupError):
            os.kill(int(process), signal.SIGKILL)
    ip("netns", "delete", name)


def options(boards: Sequence[Board], folder: Path) -> list[str]:
    known = folder / "known_hosts"
    known.write_text("".join((board.sshd.folder / "known_hosts").read_text() for board in boards))
    keys = "".join((board.sshd.folder / "id.pub").read_text() for board in boards)
    for board in boards:
        (board.sshd.folder / "id.pub").write_text(keys)
    raw = [
        "-F",
        "none",
        "-o",
        f"UserKnownHostsFile={known}",
        "-o",
        "ServerAliveInterval=1",
        "-o",
        "ServerAliveCountMax=2",
    ]
    return ["--identity", str(boards[0].sshd.folder / "id"), *(f"--ssh-option={word}" for word in raw)]


def test_a_cable_pulled_during_the_measurement_does_not_affect_the_other_board(
    boards: list[Board], tiny_model: Path, tmp_path: Path
) -> None:
    inventory = tmp_path / "boards.toml"
    labels = ("whole", "cut off")
    inventory.write_text(
        "".join(
            f'[[host]]\nhost = "{board.sshd.address}"\nlabel = "{label}"\nport = {PORT}\n'
            for board, label in zip(boards, labels, strict=True)
        )
    )
    report = tmp_path / "report.json"
    words = ["bench", tiny_model, "--inventory", inventory, "--no-install", "--no-pipeline", "--processes", "2"]
    words += ["--threads", "1", "--seconds", "0.01", "--cool-down", "0", "--allow-throttled", "-o", report]
    with subprocess.Popen(
        [sys.executable, "-m", "edgekit.cli", *map(str, words), *options(boards, tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    ) as process:
        wait_until(
            lambda: process.poll() is not None or all(board.has_started() for board in boards), patience_s=PATIENCE_S
        )
        boards[1].cut()
        boards[0].go_on()
        out, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 4, stderr
    assert "cut off: the connection was lost" in stderr
    assert "1 of 2 boards failed: cut off\n" in stderr
    document = json.loads(report.read_text())
    (board,) = document["boards"]
    assert board["label"] == "whole"
    assert {cell["kind"] for cell in board["cells"]} == {"net"}
    assert all(len(cell["processes"]) == 2 for cell in board["cells"])
    assert [(host["label"], host["error"] is None) for host in document["hosts"]] == [
        ("whole", True),
        ("cut off", False),
    ]
    assert "whole" in out
