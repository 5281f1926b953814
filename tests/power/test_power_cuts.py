"""Power cuts during deploys, onto a virtual machine with its own kernel and disk (`make test-power`).

A deploy runs over SSH on a guest, whose qemu is killed during the deploy. The guest loses its memory, and all or a part
of its disk's cache (disk.py). The guest boots again from that disk, and ext4 replays its journal.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from edgekit.errors import HostError
from edgekit.remote.deploy import Package, deploy_host, list_host
from edgekit.remote.ssh import Connection
from tests.edgekit.remote.release_board import SERVICE, SOURCE, Quiet, deploy, make_package
from tests.guest import UnavailableError

from .disk import Loss
from .machine import BOARD, HOST_ADDRESS, Machine, look, wait_for_the_service

# The first line of each part of a deploy, and the number of cuts during that part.
PARTS = {"sending": 2, "trying": 4, "switched to": 5, "done": 4}
_WRITE = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(SOURCE)!r})
from edgekit.files import write_atomic
board = Path({BOARD!r})
write_atomic(board / "atomic", bytes(1000))
(board / "new").write_bytes(bytes(1000))
(board / "new").rename(board / "plain")
"""

Make = Callable[[int], Package]


@pytest.fixture
def make(tmp_path: Path, tiny_model: Path, play: Callable[..., Any]) -> Make:
    url = play([("pictures", 10_000_000, (64, 48))]).url.replace("127.0.0.1", HOST_ADDRESS)
    return lambda number: make_package(tmp_path, tiny_model, number, url)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Machine]]:
    """Return a function that creates a machine, which is off."""
    if not os.environ.get("EDGEKIT_TEST_POWER"):
        pytest.skip("cutting the power of a virtual machine takes minutes: make test-power")
    if shutil.which("mke2fs") is None or shutil.which("sshd", path="/usr/sbin") is None:
        pytest.skip("apt-get install e2fsprogs openssh-server")
    machines = []

    def start() -> Machine:
        try:
            machines.append(Machine(tmp_path / "machine"))
        except UnavailableError as error:
            pytest.skip(f"no virtual machine: {error}")
        return machines[-1]

    yield start
    for machine in machines:
        machine.pull_the_plug()


class Deploy:
    """A deploy in a thread; `began` are the start times of its parts, and `wait` waits for a part to start."""

    def __init__(self, connection: Connection, package: Package) -> None:
        self.began = {"sending": time.monotonic()}
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._deploy, args=(connection, package))
        self._thread.start()

    def wait(self, part: str) -> None:
        with self._changed:
            self._changed.wait_for(lambda: part in self.began or "cut" in self.began)

    def end(self) -> None:
        self._thread.join()

    def _deploy(self, connection: Connection, package: Package) -> None:
        try:
            outcome = deploy_host(connection, package, SERVICE, Quiet(self._add))
        except HostError:
            self._add("cut")
        else:
            self._add("done" if outcome.error is None else "cut")

    def _add(self, line: str) -> None:
        with self._changed:
            for part in (*PARTS, "cut"):
                if line.startswith(part):
                    self.began.setdefault(part, time.monotonic())
            self._changed.notify_all()


def cut_after(machine: Machine, package: Package, part: str, delay_s: float) -> bool:
    """Boot, deploy, and cut the power `delay_s` after a part began; return whether the deploy was done by then."""
    with machine.on() as connection:
        under_way = Deploy(connection, package)
        under_way.wait(part)
        time.sleep(delay_s)
        done = "done" in under_way.began
        machine.pull_the_plug()
        under_way.end()
    return done


def damage(found: dict[str, Any], packages: dict[str, Package]) -> list[str]:
    """Return the damage of a board's releases; `packages` contains all sent packages, by the hash of the model."""
    wrong = [] if found["current"] in found["releases"] else [f"{found['current']} is not there"]
    for name, release in found["releases"].items():
        about, files = release["about"], release["files"]
        if not isinstance(about, dict):
            wrong.append(f"release.json of {name}: {about}")
        package = next((each for key, each in packages.items() if key.startswith(name.partition("-")[2])), None)
        sent = {file: upload.sha256 for file, upload in package.files.items()} if package else {}
        if files != sent or (isinstance(about, dict) and about["files"] != sent):
            wrong.append(f"files of {name}: {files}")
    return wrong


def test_power_cut_at_any_moment_leaves_the_old_or_the_new_release_whole_and_running(
    start: Callable[[], Machine], make: Make
) -> None:
    drawn = random.Random(7)  # noqa: S311 - moments, no secrets
    machine = start()
    packages: dict[str, Package] = {}
    numbers = iter(range(1, 1000))

    def fresh() -> Package:
        package = make(next(numbers))
        packages[package.files["model.onnx"].sha256] = package
        return package

    with machine.on() as connection:
        assert deploy(connection, fresh()).error is None
        under_way = Deploy(connection, fresh())
        under_way.end()
        began = under_way.began
        before = look(connection)["current"]
    assert list(began) == list(PARTS)
    machine.disk.cut(None)
    starts = [*began.values(), began["done"] + 2]
    lasts_s = {part: after - at for part, (at, after) in zip(began, pairwise(starts), strict=True)}
    seen = {"old": 0, "new": 0}
    losses: list[Loss] = []
    for part, cuts in PARTS.items():
        for cut in range(cuts):
            package = fresh()
            delay_s = (cut + drawn.random()) / cuts * lasts_s[part]
            done = cut_after(machine, package, part, delay_s)
            # The cut loses all or some of the disk's cache, in turn.
            loss = machine.disk.cut(drawn if cut % 2 else None)
            losses.append(loss)
            replayed = machine.disk.needs_recovery()
            with ExitStack() as until_checked:
                connection = until_checked.enter_context(machine.on())
                state = wait_for_the_service(connection)
                found = look(connection)
                new = found["current"].endswith(package.files["model.onnx"].sha256[:8])
                print(part, f"{delay_s:.2f} s", found["current"], loss, "replayed" if replayed else "clean")
                assert replayed
                assert damage(found, packages) == []
                assert new or found["current"] == before
                assert new or not done, "what deploy called done is done"
                assert state == "running"
                seen["new" if new else "old"] += 1
                assert deploy(connection, fresh()).error is None
                after = look(connection)
                assert damage(after, packages) == []
                assert not after["pending"]
                assert not after["strays"]
                assert not list_host(connection, SERVICE, Quiet()).cut
                before = after["current"]
            # A power cut right after a completed deploy.
            machine.disk.cut(None)
    print(seen, "unflushed blocks lost:", [f"{loss.lost} of {loss.unflushed}" for loss in losses])
    assert all(seen.values())


def test_an_unsynced_file_is_lost(start: Callable[[], Machine]) -> None:
    """The disk loses unsynced writes: of two files, only the file that edgekit wrote is left."""
    machine = start()
    with machine.on() as connection:
        assert connection.run([sys.executable, "-c", _WRITE]).returncode == 0
        machine.pull_the_plug()
    machine.disk.cut(None)
    assert machine.disk.needs_recovery()
    with machine.on() as connection:
        done = connection.run(["sh", "-c", f"cd {BOARD} && ls && wc -c < atomic"])
    assert done.text.split() == ["atomic", "home", "lost+found", "1000"]
