"""A real sshd with its own keys and a temporary home folder, on a loopback port."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgekit.remote.deploy import Package
from edgekit.remote.hosts import Host
from edgekit.remote.ssh import Connection, ConnectionLostError, shell
from tests.fake_systemd import FakeSystemd
from tests.ports import free_port

from .release_board import OWN, Board, MakePackage, make_package

_START_TIMEOUT_S = 20


@dataclass(frozen=True)
class Sshd:
    """A running sshd: its address, its port and the folder of its keys; `home` is the home folder of the board."""

    port: int
    folder: Path
    home: Path

    @property
    def options(self) -> tuple[str, ...]:
        return ("-F", "none", "-o", f"UserKnownHostsFile={self.folder / 'known_hosts'}", "-o", "IdentitiesOnly=yes")

    def host(self, **changes: object) -> Host:
        fields = {
            "address": "127.0.0.1",
            "label": "board",
            "port": self.port,
            "identity": self.folder / "id",
            "ssh_options": self.options,
        }
        return Host(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with serve(tmp_path_factory.mktemp("sshd")) as board:
        yield board


def _path_without_edgekit() -> str:
    """Return PATH without folders that contain an edgekit, such as an active environment."""
    folders = os.environ["PATH"].split(os.pathsep)
    return os.pathsep.join(folder for folder in folders if not (Path(folder) / "edgekit").exists())


def has_penalties() -> bool:
    """Return whether sshd can refuse connections for a while after rejected logins and crashed sessions."""
    version = subprocess.run(["ssh", "-V"], capture_output=True, text=True).stderr
    return tuple(map(int, re.findall(r"\d+", version)[:2])) >= (9, 8)


@contextmanager
def serve(folder: Path, settings: str = "") -> Iterator[Sshd]:
    """Run an sshd on a free loopback port; `settings` are further lines of sshd_config."""
    program = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None or shutil.which("ssh") is None:
        pytest.skip("no sshd here: apt-get install openssh-server openssh-client")
    port, home = free_port(), folder / "home"
    home.mkdir()
    for name in ("id", "other_id", "host_key", "other_host_key"):
        make_key(folder / name)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    # Tests kill sessions, for which sshd would refuse the next connections. Of equal settings the first one counts.
    patience = "PerSourcePenalties no" if has_penalties() else ""
    config = folder / "sshd_config"
    config.write_text(
        f"""Port {port}
ListenAddress 127.0.0.1
HostKey {folder / "host_key"}
AuthorizedKeysFile {folder / "id.pub"}
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
PermitRootLogin yes
PidFile none
MaxStartups 100
SetEnv HOME={home} XDG_CACHE_HOME={home / ".cache"} PATH={home / "systemd"}:{_path_without_edgekit()}
Subsystem sftp internal-sftp
{settings}
{patience}
"""
    )
    know(folder, port, folder / "host_key.pub")
    with (folder / "sshd.log").open("wb") as log:
        process = subprocess.Popen([program, "-D", "-e", "-f", config], stderr=log)
    try:
        wait_for(port, process, folder / "sshd.log")
        yield Sshd(port, folder, home)
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def connection(sshd: Sshd) -> Iterator[Connection]:
    with Connection(sshd.host()) as connected:
        yield connected


def cut(connection: Connection) -> None:
    """End the session of sshd that all commands of a connection share."""
    with pytest.raises(ConnectionLostError):
        connection.run(shell("kill -9 $PPID"))


@pytest.fixture
def board(sshd: Sshd) -> Iterator[Board]:
    own = sshd.home / ".local/bin/edgekit"
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text(OWN)
    own.chmod(0o755)
    with FakeSystemd(sshd.home / "systemd", sshd.home) as systemd:
        here = Board(sshd.home, systemd)
        yield here
    for folder in (here.root.parent, own.parent, sshd.home / ".cache", here.unit.parent, systemd.folder):
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def make(tmp_path: Path, tiny_model: Path, play: Callable[..., Any]) -> MakePackage:
    """Return a function that makes a package; each number has another model hash, and the source is a real stream."""
    url = play([("pictures", 1_000_000, (64, 48))]).url

    def make(number: int = 1, source: str = url, keep: int = 3, content: bytes | None = None) -> Package:
        return make_package(tmp_path, tiny_model, number, source, keep, content)

    return make


def make_key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


def know(folder: Path, port: int, public_key: Path, name: str = "known_hosts") -> Path:
    kind, key = public_key.read_text().split()[:2]
    known = folder / name
    known.write_text(f"[127.0.0.1]:{port} {kind} {key}\n")
    return known


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    until_s = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < until_s and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    pytest.skip(f"sshd does not start here: {log.read_text()[-300:]}")
