"""A stand-in for a user's systemd: the programs `systemctl`, `journalctl` and `loginctl` in a folder of the test.

`FakeSystemd(folder)` writes the three programs; a process with `folder` first in PATH uses them. For each service, one
process (`_keep`) starts the unit's command, receives its READY=1, and starts it again when `systemctl restart` sends a
signal. A restart is one signal, so that it is complete even if the caller dies, as with the real systemd. No service
is restarted after a failure.

The output has the form of systemd 257; tests/systemd runs the same code with a real systemd.
"""

from __future__ import annotations

import json
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

_STOP_TIMEOUT_S = 10
_NOT_FOUND = {"LoadState": "not-found", "ActiveState": "inactive", "SubState": "dead", "UnitFileState": ""}
_STOPPED = {"LoadState": "loaded", "ActiveState": "inactive", "SubState": "dead", "UnitFileState": "enabled"}
_ALWAYS = {
    "FragmentPath": "",
    "Result": "success", "NRestarts": "0", "MainPID": "0", "StatusText": "", "ExecMainCode": "0", "ExecMainStatus": "0",
}  # fmt: skip


class FakeSystemd:
    """The folder of the three programs; services end with the `with` block."""

    def __init__(self, folder: Path, home: Path, running: bool = True) -> None:
        """Write the programs; with `running` False, their output is that of a machine without a running systemd."""
        self.folder = folder
        self._home = home
        folder.mkdir(parents=True)
        for name, text in programs(str(folder), sys.executable).items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        if not running:
            (folder / "offline").touch()

    def __enter__(self) -> FakeSystemd:
        return self

    def __exit__(self, *exception: object) -> None:
        for path in self.folder.glob("*.state"):
            self.systemctl("disable", "--now", f"{path.stem}.service")

    def systemctl(self, *words: str) -> str:
        """Return the output of `systemctl --user` with these words."""
        environment = {**os.environ, "HOME": str(self._home)}
        environment.pop("XDG_CONFIG_HOME", None)
        command = [self.folder / "systemctl", "--user", *words]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    def keeper(self, name: str) -> int:
        """Return the id of the process that keeps a service running (`_keep`)."""
        pid: int = json.loads((self.folder / f"{name}.state").read_text())["keeper"]
        return pid


def programs(folder: str, python: str) -> dict[str, str]:
    """Return name → text of the files for `folder`, which must be writable."""
    # The shell handles this request, because an emulated board starts Python too slowly.
    asked = f"if [ -e '{folder}/offline' ]; then echo offline; exit 1; fi; echo running; exit"
    names = ("systemctl", "journalctl", "loginctl")
    texts = {
        name: f'#!/bin/sh\ncase "$*" in *is-system-running) {asked} ;; esac\n'
        f"exec '{python}' -I '{folder}/fake.py' {name} \"$@\"\n"
        for name in names
    }
    return {**texts, "fake.py": Path(__file__).read_text()}


def _main(program: str, words: Sequence[str]) -> int:
    if program == "loginctl":
        return 0
    if program == "journalctl":
        unit = next(word for word in words if "unit=" in word).partition("=")[2]
        count = int(next(word for word in words if word.startswith("--lines=")).partition("=")[2])
        print("\n".join(_file(unit, "log").read_text().splitlines()[-count:]))
        return 0
    user, verb, *rest = "--user" in words, *[word for word in words if word != "--user"]
    unit = next((word if word.endswith(".service") else f"{word}.service" for word in rest if word[0] != "-"), "")
    if verb == "--version":
        print("systemd 257 (257.8-1~deb13u2)\n+PAM +AUDIT +SELINUX")
    elif verb == "show":
        found = {**_ALWAYS, **(_look(unit) if user else _look_at_system(unit))}
        wanted = next(word for word in rest if word.startswith("--property=")).partition("=")[2].split(",")
        print("\n".join(f"{key}={found[key]}" for key in wanted))
    elif verb in ("start", "restart"):
        _start(unit)
    elif verb == "disable" and "--now" in rest:
        _stop(unit)
    return 0


def _look_at_system(unit: str) -> dict[str, str]:
    """Return the state of a system service: it exists, and is stopped, if a test has written the file `NAME.system`."""
    return _STOPPED if _file(unit, "system").exists() else _NOT_FOUND


def _look(unit: str) -> dict[str, str]:
    path = _unit_path(unit)
    if not path.exists():
        return _NOT_FOUND
    state = _state(unit)
    shown = state["shown"] if state and _is_keeper(state["keeper"]) else {}
    return {**_STOPPED, "FragmentPath": str(path), **shown}


def _start(unit: str) -> None:
    state = _state(unit)
    if state and _is_keeper(state["keeper"]):
        os.kill(state["keeper"], signal.SIGUSR1)
        return
    _file(unit, "state").unlink(missing_ok=True)
    command = [sys.executable, "-I", __file__, "keep", unit]
    quiet = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)]
    os.posix_spawn(command[0], command, os.environ, file_actions=quiet, setsid=True)
    while _state(unit) is None:
        time.sleep(0.01)


def _stop(unit: str) -> None:
    state = _state(unit)
    if state is None:
        return
    with suppress(ProcessLookupError):
        os.kill(state["keeper"], signal.SIGTERM)
    while _is_keeper(state["keeper"]):
        time.sleep(0.01)
    _file(unit, "state").unlink(missing_ok=True)


def _keep(unit: str) -> None:
    wake, waken = os.pipe()
    os.set_blocking(waken, False)
    signal.set_wakeup_fd(waken)
    for number in (signal.SIGCHLD, signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    address = _file(unit, "notify")
    address.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(address))
        again = True
        while again:
            again = _run_once(unit, notify, wake)


def _run_once(unit: str, notify: socket.socket, wake: int) -> bool:
    """Run the unit's command until a restart or a stop is requested; return whether to start it again."""
    with _file(unit, "log").open("ab") as log:
        child = _spawn(unit, str(notify.getsockname()), log)
    _show(unit, ActiveState="activating", SubState="start", MainPID=str(child.pid))
    restart, stop, kill_s = False, False, float("inf")
    while True:
        timeout_s = None if kill_s == float("inf") else max(0.0, kill_s - time.monotonic())
        ready, _, _ = select.select([notify, wake], [], [], timeout_s)
        if not ready:
            child.kill()
            kill_s = float("inf")
        if notify in ready:
            state = dict(line.split("=", 1) for line in notify.recv(4096).decode().splitlines())
            if child.poll() is None and not restart and not stop:
                _show(unit, ActiveState="active", SubState="running", MainPID=str(child.pid),
                      StatusText=state.get("STATUS", ""))  # fmt: skip
        if wake in ready:
            wanted = os.read(wake, 64)
            restart, stop = restart or signal.SIGUSR1 in wanted, stop or signal.SIGTERM in wanted
        ended = child.poll() is not None
        if ended and (restart or stop):
            return not stop
        if ended:
            code, state = child.returncode, "failed" if child.returncode else "inactive"
            _show(unit, ActiveState=state, SubState=state, Result="exit-code",
                  ExecMainCode="2" if code < 0 else "1", ExecMainStatus=str(abs(code)))  # fmt: skip
        elif (restart or stop) and kill_s == float("inf"):
            _show(unit, ActiveState="deactivating", SubState="stop-sigterm", MainPID=str(child.pid))
            child.terminate()
            kill_s = time.monotonic() + _STOP_TIMEOUT_S


def _spawn(unit: str, address: str, log: Any) -> subprocess.Popen[bytes]:
    lines = [line.partition("=") for line in _unit_path(unit).read_text().splitlines()]
    values = [(key, value.replace("%%", "%")) for key, _, value in lines]
    command = next(value for key, value in values if key == "ExecStart").removeprefix(":")
    folder = next(value for key, value in values if key == "WorkingDirectory")
    extra = dict(shlex.split(value)[0].split("=", 1) for key, value in values if key == "Environment")
    environment = {**os.environ, **extra, "NOTIFY_SOCKET": address}
    return subprocess.Popen(shlex.split(command), cwd=folder, env=environment, stdout=log, stderr=log)


def _show(unit: str, **shown: str) -> None:
    fresh = _file(unit, f"{os.getpid()}.fresh")
    fresh.write_text(json.dumps({"keeper": os.getpid(), "shown": shown}))
    fresh.replace(_file(unit, "state"))


def _state(unit: str) -> dict[str, Any] | None:
    try:
        state: dict[str, Any] = json.loads(_file(unit, "state").read_text())
    except FileNotFoundError:
        return None
    return state


def _is_keeper(pid: int) -> bool:
    try:
        return os.fsencode(__file__) in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _unit_path(unit: str) -> Path:
    folder = os.environ.get("XDG_CONFIG_HOME") or f"{os.environ['HOME']}/.config"
    return Path(folder, "systemd/user", unit)


def _file(unit: str, ending: str) -> Path:
    return _HERE / f"{unit.removesuffix('.service')}.{ending}"


_HERE = Path(__file__).parent

if __name__ == "__main__":
    if sys.argv[1] == "keep":
        _keep(sys.argv[2])
    else:
        sys.exit(_main(sys.argv[1], sys.argv[2:]))
