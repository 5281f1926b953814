"""Services on a machine without systemd: each has a folder and a supervisor."""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from edgekit.device.procfs import start_ticks
from edgekit.device.service.folder import (
    LOG_FILE,
    SPEC_FILE,
    end_process,
    read_progress,
    runs,
    write_spec,
)
from edgekit.device.service.spec import STOP_TIMEOUT_S, Scope, ServiceSpec, ServiceStatus, State, require_root
from edgekit.errors import EdgekitError, InputError, StorageError

_START_PATIENCE_S = 10.0
_POLL_S = 0.05
_TURN_FILE = "turn"


class SupervisedManager:
    """Keeps services by edgekit's own supervisor (`supervisor.py`)."""

    name = "supervisor"

    def __init__(self, scope: Scope, base: Path | None = None) -> None:
        """Choose where the services' folders are.

        Args:
            scope: "system" is for root: its services may run as another user.
            base: Another place than /var/lib/edgekit/services or ~/.local/state/edgekit/services.
        """
        self._scope = scope
        self._base = base or _base(scope)

    def install(self, spec: ServiceSpec) -> list[str]:
        """Write the service's folder and start its supervisor.

        Raises:
            InputError: A system service, and the caller is not root.
            StorageError: The folder cannot be written.
            EdgekitError: The supervisor does not start.
        """
        require_root(self._scope)
        folder = self._base / spec.name
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StorageError(f"cannot write '{folder}': {error.strerror}") from error
        with (folder / _TURN_FILE).open("a") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)  # of several installs at once each replaces the one before
            self._stop(spec.name)
            write_spec(folder, spec)
            command = _start_supervisor(folder)
        return [f"without systemd nothing starts it at boot: add to 'crontab -e': @reboot {shlex.join(command)}"]

    def restart(self, name: str) -> None:
        """Tell the supervisor to start the command anew, or start the supervisor if none runs.

        Raises:
            InputError: There is none of that name.
            EdgekitError: The supervisor does not start.
        """
        require_root(self._scope)
        folder = self._require_installed(name)
        progress = read_progress(folder)
        if progress is not None and progress.state not in ("stopped", "failed") and runs(progress.supervisor):
            with suppress(ProcessLookupError):
                os.kill(progress.supervisor[0], signal.SIGUSR1)
                return
        _start_supervisor(folder)

    def status(self, name: str) -> ServiceStatus:
        """Return what the supervisor wrote last, and whether it still runs."""
        progress = read_progress(self._base / name)
        if progress is None:
            installed = (self._base / name / SPEC_FILE).exists()
            return ServiceStatus(name, self.name, "stopped" if installed else "not installed")
        state: State = progress.state
        text = progress.text
        if not runs(progress.supervisor) and state not in ("stopped", "failed"):
            state, text = "failed", "its supervisor was killed: install it again"
        return ServiceStatus(
            name=name,
            manager=self.name,
            state=state,
            pid=progress.child[0] if progress.child and runs(progress.child) else None,
            restarts=progress.restarts,
            text=text,
            last_exit=progress.last_exit,
        )

    def logs_command(self, name: str, lines: int, follow: bool) -> Sequence[str]:
        """Return the command that shows the end of the log."""
        log = self._require_installed(name) / LOG_FILE
        return ["tail", f"--lines={lines}", *(["--follow=name", "--retry"] if follow else []), "--", str(log)]

    def remove(self, name: str) -> None:
        """Stop the service and delete its folder, the log too.

        Raises:
            InputError: There is none of that name.
        """
        require_root(self._scope)
        folder = self._require_installed(name)
        self._stop(name)
        shutil.rmtree(folder, ignore_errors=True)

    def _require_installed(self, name: str) -> Path:
        folder = self._base / name
        if not (folder / SPEC_FILE).exists():
            raise InputError(f"there is no {self._scope} service '{name}': 'edgekit service install' makes one")
        return folder

    def _stop(self, name: str) -> None:
        progress = read_progress(self._base / name)
        if progress is None:
            return
        # The supervisor gives its child the same time, and then kills it.
        end_process(progress.supervisor, STOP_TIMEOUT_S * 2)
        latest = read_progress(self._base / name)
        if latest is not None and latest.child is not None:
            end_process(latest.child, STOP_TIMEOUT_S)


def _start_supervisor(folder: Path) -> list[str]:
    """Start the supervisor of the service in `folder` and return its command."""
    command = [sys.executable, "-P", "-m", "edgekit.device.service", str(folder)]
    pid = _spawn(command, folder / LOG_FILE)
    ends_s = time.monotonic() + _START_PATIENCE_S
    while (progress := read_progress(folder)) is None or progress.supervisor[0] != pid:
        if start_ticks(pid) is None or time.monotonic() > ends_s:
            raise EdgekitError(f"service '{folder.name}' does not start: see '{folder / LOG_FILE}'")
        time.sleep(_POLL_S)
    return command


def _spawn(command: list[str], log: Path) -> int:
    """Start a process that outlives this one and its terminal, writing into `log`; return its number."""
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    return os.posix_spawn(command[0], command, os.environ, file_actions=actions, setsid=True)


def _base(scope: Scope) -> Path:
    if scope == "system":
        return Path("/var/lib/edgekit/services")
    state = os.environ.get("XDG_STATE_HOME", "")
    home = Path(state) if Path(state).is_absolute() else Path.home() / ".local/state"
    return home / "edgekit/services"
