"""Services that systemd keeps."""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from edgekit.device.service.spec import DEVICE_GROUPS, Scope, ServiceSpec, ServiceStatus, State, require_root
from edgekit.device.service.unit import MARK, unit_text
from edgekit.errors import EdgekitError, InputError
from edgekit.files import write_atomic

_TOOL_TIMEOUT_S = 30
_PROPERTIES = (
    "LoadState,ActiveState,SubState,MainPID,NRestarts,StatusText,Result,ExecMainCode,ExecMainStatus,UnitFileState"
)
_STATES: dict[str, State] = {
    "active": "running",
    "reloading": "running",
    "activating": "starting",
    "deactivating": "stopped",
    "inactive": "stopped",
    "failed": "failed",
}
# ExecMainCode is the kernel's si_code: how a process ended.
_EXITED = "1"
_BY_SIGNAL = ("2", "3")


class SystemdManager:
    """The system's own systemd, or the one every logged-in user has."""

    name = "systemd"

    def __init__(self, scope: Scope) -> None:
        """Choose whose manager.

        Raises:
            InputError: The system's, and the caller is not root.
        """
        self._scope = scope
        self._flags = [] if scope == "system" else ["--user"]

    def install(self, spec: ServiceSpec) -> list[str]:
        """Write the unit, enable it and start it.

        Raises:
            InputError: A unit of that name exists that edgekit did not write, or systemd does not take this one.
            StorageError: It cannot be written.
            EdgekitError: It does not start, and why.
        """
        require_root(self._scope)
        path = self._path(spec.name)
        self._require_own(path)
        advice = self._advice(spec)
        text = unit_text(
            spec,
            self._scope,
            groups=_existing_groups(),
            systemd_version=self._version(),
            udevadm=shutil.which("udevadm"),
            cache=_cache_of(spec.run_as),
        )
        write_atomic(path, text)
        path.chmod(0o644)
        self._systemctl("daemon-reload")
        self._systemctl("enable", "--quiet", path.name)
        # A service that used up its starts would not be started again.
        self._systemctl("reset-failed", path.name, check=False)
        self._systemctl("restart", "--no-block", path.name)
        return advice

    def status(self, name: str) -> ServiceStatus:
        """Return what systemd says of the service."""
        told = dict(
            line.split("=", 1)
            for line in self._systemctl("show", f"{name}.service", f"--property={_PROPERTIES}").splitlines()
            if "=" in line
        )
        if told.get("LoadState") == "not-found":
            return ServiceStatus(name, self.name, "not installed")
        state = _STATES.get(told.get("ActiveState", ""), "stopped")
        if told.get("SubState", "").startswith("auto-restart"):
            state = "waiting to restart"
        pid = int(told.get("MainPID") or 0)
        return ServiceStatus(
            name=name,
            manager=self.name,
            state=state,
            pid=pid or None,
            restarts=int(told.get("NRestarts") or 0),
            text=told.get("StatusText") or None,
            last_exit=_last_exit(told) if not pid else None,
            starts_at_boot=told.get("UnitFileState") == "enabled",
        )

    def restart(self, name: str) -> None:
        """Have systemd stop the service and start it, which goes on when the caller is gone.

        Raises:
            InputError: There is none, or edgekit did not write it.
            EdgekitError: systemd refuses.
        """
        require_root(self._scope)
        path = self._require_installed(name)
        self._require_own(path)
        self._systemctl("reset-failed", path.name, check=False)
        self._systemctl("restart", "--no-block", path.name)

    def logs_command(self, name: str, lines: int, follow: bool) -> Sequence[str]:
        """Return journalctl's command line."""
        self._require_installed(name)
        unit = f"--unit={name}.service" if self._scope == "system" else f"--user-unit={name}.service"
        return ["journalctl", unit, f"--lines={lines}", "--no-pager", *(["--follow"] if follow else [])]

    def remove(self, name: str) -> None:
        """Stop, disable and delete the unit.

        Raises:
            InputError: There is none, or edgekit did not write it.
        """
        require_root(self._scope)
        path = self._require_installed(name)
        self._require_own(path)
        self._systemctl("disable", "--quiet", "--now", path.name, check=False)
        path.unlink(missing_ok=True)
        self._systemctl("daemon-reload")
        self._systemctl("reset-failed", path.name, check=False)

    def _path(self, name: str) -> Path:
        if self._scope == "system":
            return Path("/etc/systemd/system") / f"{name}.service"
        base = os.environ.get("XDG_CONFIG_HOME", "")
        folder = Path(base) if Path(base).is_absolute() else Path.home() / ".config"
        return folder / "systemd/user" / f"{name}.service"

    def _require_installed(self, name: str) -> Path:
        path = self._path(name)
        if not path.exists():
            raise InputError(
                f"there is no {self._scope} service '{name}': install it, or look with the other of --user and --system"
            )
        return path

    def _require_own(self, path: Path) -> None:
        if path.exists() and MARK not in path.read_text(errors="replace"):
            raise InputError(f"'{path}' was not written by edgekit: choose another --name")

    def _version(self) -> int:
        found = re.match(r"systemd (\d+)", self._systemctl("--version"))
        return int(found.group(1)) if found else 0

    def _advice(self, spec: ServiceSpec) -> list[str]:
        if self._scope == "system":
            return []
        advice = []
        user = pwd.getpwuid(os.getuid())
        mine = set(os.getgrouplist(user.pw_name, user.pw_gid))
        missing = [group for group in _existing_groups() if grp.getgrnam(group).gr_gid not in mine]
        if missing and os.getuid() != 0:
            advice.append(
                f"user '{user.pw_name}' is not in {' and '.join(missing)}: "
                f"sudo usermod -aG {','.join(missing)} {user.pw_name}, and log in again"
            )
        if not Path("/var/lib/systemd/linger", user.pw_name).exists():
            lingering = _run(["loginctl", "enable-linger"])
            if lingering.returncode:
                advice.append(
                    f"service '{spec.name}' runs only while you are logged in: "
                    f"sudo loginctl enable-linger {user.pw_name}"
                )
        return advice

    def _systemctl(self, *arguments: str, check: bool = True) -> str:
        done = _run(["systemctl", *self._flags, *arguments])
        if check and done.returncode:
            reason = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
            raise EdgekitError(f"systemctl {' '.join(arguments)}: {reason}")
        return done.stdout


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LC_ALL": "C"}
    # Missing in `su` and cron; systemctl --user cannot be reached without.
    environment.setdefault("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
    try:
        return subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TOOL_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise EdgekitError(f"{command[0]} does not answer after {_TOOL_TIMEOUT_S} s") from error


def _existing_groups() -> list[str]:
    # A unit that names a group the system lacks does not start.
    known = {group.gr_name for group in grp.getgrall()}
    return [group for group in DEVICE_GROUPS if group in known]


def _cache_of(user: str | None) -> Path | None:
    """Return the downloads a user already has: a board without a network has no others."""
    if user is None:
        return None
    folder = Path(pwd.getpwnam(user).pw_dir) / ".cache/edgekit"
    return folder if folder.is_dir() else None


def _last_exit(told: dict[str, str]) -> str | None:
    code, status = told.get("ExecMainCode"), told.get("ExecMainStatus")
    result = told.get("Result", "")
    if result in ("watchdog", "timeout", "oom-kill", "start-limit-hit"):
        return result
    if code == _EXITED:
        return f"exit code {status}"
    return f"signal {status}" if code in _BY_SIGNAL else None
