"""A virtual machine with a disk, an sshd and a service that starts at boot, whose power can be cut."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from edgekit.errors import HostError
from edgekit.remote.deploy import list_host
from edgekit.remote.ssh import Connection
from tests.edgekit.remote.conftest import Sshd, know, make_key
from tests.edgekit.remote.release_board import OWN, SERVICE, SOURCE, Quiet
from tests.fake_systemd import programs
from tests.guest import SHARE, machine_words
from tests.ports import free_port

from .disk import Disk

# This machine's address in the guest's network.
HOST_ADDRESS = "10.0.2.2"
BOARD = "/run/board"
_HOME = f"{BOARD}/home"
_ROOT = f"{_HOME}/.local/share/edgekit/deploy/{SERVICE.name}"
_UNIT = f"{SERVICE.name}.service"
_SYSTEMD = "/run/systemd-stand-in"
_PATIENCE_S = 600
_MODULES = ("virtio_blk", "ext4", "virtio_net")

# The boot: network, disk, the user's service (started by the stand-in for systemd), and sshd.
_SCRIPT = f"""
busybox ip link set lo up; busybox ip address add 10.0.2.15/24 dev eth0; busybox ip link set eth0 up
mkdir /dev/shm {BOARD} /run/sshd; mount -t tmpfs shm /dev/shm
mount -t ext4 /dev/vda {BOARD} || exit
mkdir {_SYSTEMD}; cp {SHARE}/systemd/* {_SYSTEMD}
export HOME={_HOME}
if [ -e {_HOME}/.config/systemd/user/{_UNIT} ]; then
    PYTHONPATH={{source}} {_SYSTEMD}/systemctl --user start {_UNIT} < /dev/null
fi
exec /usr/sbin/sshd -D -e -f {SHARE}/sshd_config
"""

# Prints the state of a board as one document.
_LOOK = f"""
import hashlib, json, pathlib
root = pathlib.Path({_ROOT!r})
def document(path):
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        return str(error)
print(json.dumps({{
    "current": (root / "current").readlink().name,
    "pending": (root / "pending").exists(),
    "strays": [str(path) for place in (root, root / "releases") for path in place.glob(".*")],
    "releases": {{
        release.name: {{
            "about": document(release / "release.json"),
            "files": {{
                path.name: hashlib.sha256(path.read_bytes()).hexdigest()
                for path in release.iterdir() if path.name not in ("release.json", "failed")
            }},
        }}
        for release in (root / "releases").glob("[0-9]*")
    }},
}}))
"""


class Machine:
    """A virtual machine that is off at first.

    Raises:
        UnavailableError: A virtual machine is not possible here.
    """

    def __init__(self, folder: Path) -> None:
        content, share = folder / "content", folder / "share"
        share.mkdir(parents=True)
        own = content / "home/.local/bin/edgekit"
        own.parent.mkdir(parents=True)
        own.write_text(OWN)
        own.chmod(0o755)
        (share / "systemd").mkdir()
        for name, text in programs(_SYSTEMD, sys.executable).items():
            (share / "systemd" / name).write_text(text)
            (share / "systemd" / name).chmod(0o755)
        script = _SCRIPT.format(source=shlex.quote(str(SOURCE)))
        self._words = machine_words(script, share, dict.fromkeys(_MODULES, ""))
        self.disk = Disk(folder, content)
        for name in ("id", "host_key"):
            make_key(share / name)
        (share / "sshd_config").write_text(
            f"HostKey {SHARE}/host_key\nAuthorizedKeysFile {SHARE}/id.pub\nStrictModes no\nUsePAM no\nPidFile none\n"
            f"PermitRootLogin yes\nSetEnv HOME={_HOME} XDG_CACHE_HOME={_HOME}/.cache TMPDIR=/run/tmp "
            f"PATH={_SYSTEMD}:{os.environ['PATH']}\n"
        )
        self._port = free_port()
        know(share, self._port, share / "host_key.pub")
        self._sshd = Sshd(self._port, share, folder)
        self._console = folder / "console"
        self._process: subprocess.Popen[bytes] | None = None

    @contextmanager
    def on(self) -> Iterator[Connection]:
        """Switch the machine on and yield a connection; switch the machine off at the end."""
        network = f"user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:{self._port}-:22"
        with self._console.open("wb") as console:
            self._process = subprocess.Popen(
                [*self._words, *self.disk.plug_in(), "-nic", network],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
            )
        try:
            with ExitStack() as open_until_off:
                yield self._connect(open_until_off)
        finally:
            self.pull_the_plug()

    def pull_the_plug(self) -> None:
        """Kill the machine at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _connect(self, until: ExitStack) -> Connection:
        assert self._process is not None
        end_s = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return until.enter_context(Connection(self._sshd.host()))
            except HostError as error:
                message = f"{error}\n{self._console.read_text(errors='replace')[-2000:]}\n{self._output()}"
                assert self._process.poll() is None, message
                assert time.monotonic() < end_s, message
                time.sleep(0.2)

    def _output(self) -> str:
        output = self._sshd.folder / "output"
        return output.read_text(errors="replace")[-2000:] if output.exists() else ""


def look(connection: Connection) -> dict[str, Any]:
    """Return the state of a board: `current`, `pending`, `strays`, and `releases` with `about` and file hashes."""
    done = connection.run([sys.executable, "-c", _LOOK], timeout_s=_PATIENCE_S)
    assert done.returncode == 0, done.last_error_line
    found: dict[str, Any] = json.loads(done.text)
    return found


def wait_for_the_service(connection: Connection) -> str:
    """Wait until the service is running or has failed, and return its state."""
    end_s = time.monotonic() + _PATIENCE_S
    while True:
        listed = list_host(connection, SERVICE, Quiet())
        state = listed.service.state
        if state in ("running", "failed") or time.monotonic() > end_s:
            return state
        time.sleep(0.2)
