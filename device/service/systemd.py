"""Services managed by systemd."""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from edgekit.boards import systemd_is_running
from edgekit.device.service import (
    DEVICE_GROUPS,
    MARK,
    Scope,
    ServiceSpec,
    ServiceStatus,
    State,
    require_root,
    unit_text,
)
from edgekit.errors import EdgekitError, InputError
from edgekit.files import write_atomic

_TOOL_TIMEOUT_S = 30
_PROPERTIES = (
    "LoadState,ActiveState,SubState,MainPID,NRestarts,StatusText,Result,ExecMainCode,ExecMainStatus,UnitFileState"
)
# By systemd's ActiveState; all others count as stopped.
_STATES: dict[str, State] = {"active": "running", "activating": "starting", "failed": "failed"}
# ExecMainCode is the kernel's si_code, the way in which a process ended.
_EXITED = "1"
_BY_SIGNAL = ("2", "3")


class SystemdManager:
    """The system's instance of systemd, or the user's own instance."""

    name = "systemd"

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._flags = [] if scope == "system" else ["--user"]

    def install(self, spec: ServiceSpec) -> list[str]:
        """Write the service's unit file, enable it and start it; return warnings for the user.

        Raises:
            InputError: A unit of this name exists that edgekit has not written, such as `ssh`, or a system service is
                installed without root rights.
            StorageError: The unit cannot be written.
            EdgekitError: systemd rejects the unit.
        """
        require_root(self._scope)
        path = self._path(spec.name)
        self._require_own(path)
        self._require_free(path)
        warnings = self._enable_linger(spec.name)  # for a user's service, which otherwise ends at the logout
        text = unit_text(
            spec,
            self._scope,
            groups=_existing_groups(),
            systemd_version=self._version(),
            udevadm=shutil.which("udevadm"),
            cache=_cache_of(spec.run_as),
        )
        write_atomic(path, text)
        path.chmod(0o644)  # whatever the umask is, readable for every user, as other units are
        self._systemctl("daemon-reload")
        self._systemctl("enable", "--quiet", path.name)
        self._restart(path.name)
        return warnings

    def status(self, name: str) -> ServiceStatus:
        """Return the state of a service; "not installed" is a state, not an error."""
        output = self._systemctl("show", f"{name}.service", f"--property={_PROPERTIES}")
        # Lines NAME=VALUE; systemctl prints those of an unknown service, too.
        properties = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
        if properties.get("LoadState") == "not-found":
            return ServiceStatus(name, self.name, "not installed")
        state = _STATES.get(properties.get("ActiveState", ""), "stopped")
        if properties.get("SubState", "").startswith("auto-restart"):
            state = "waiting to restart"
        pid = int(properties.get("MainPID") or 0)
        return ServiceStatus(
            name=name,
            manager=self.name,
            state=state,
            pid=pid or None,
            restarts=int(properties.get("NRestarts") or 0),
            text=properties.get("StatusText") or None,
            last_exit=_last_exit(properties) if not pid else None,  # only while no process runs
            starts_at_boot=properties.get("UnitFileState") == "enabled",
        )

    def restart(self, name: str) -> None:
        """Restart a service in any state; systemd completes the restart even if the caller is killed.

        Raises:
            InputError: The service is not installed, or edgekit did not write it.
            EdgekitError: systemd rejects the restart.
        """
        self._restart(self._require_changeable(name).name)

    def logs_command(self, name: str, lines: int, follow: bool) -> Sequence[str]:
        """Return the journalctl command that prints the last `lines` of a service, and new ones with `follow`.

        Raises:
            InputError: The service is not installed.
        """
        self._require_installed(name)
        unit = f"--unit={name}.service" if self._scope == "system" else f"--user-unit={name}.service"
        command = ["journalctl", unit, f"--lines={lines}", "--no-pager"]
        return [*command, "--follow"] if follow else command

    def remove(self, name: str) -> None:
        """Stop and disable the service, and delete its unit file, also if it cannot be stopped.

        Raises:
            InputError: The service is not installed, or edgekit did not write it.
        """
        path = self._require_changeable(name)
        self._systemctl("disable", "--quiet", "--now", path.name, check=False)
        path.unlink(missing_ok=True)
        self._systemctl("daemon-reload")
        # A failed service stays in systemd's list without its file. An error means that it had not failed.
        self._systemctl("reset-failed", path.name, check=False)

    def _restart(self, unit: str) -> None:
        """Let systemd restart a unit in any state, without waiting for it."""
        # Without this, systemd does not start a service that has reached its limit of starts.
        self._systemctl("reset-failed", unit, check=False)
        self._systemctl("restart", "--no-block", unit)

    def _path(self, name: str) -> Path:
        """Return the path of a service's unit file, in the folder for units of the administrator or of the user."""
        if self._scope == "system":
            return Path("/etc/systemd/system") / f"{name}.service"
        base = os.environ.get("XDG_CONFIG_HOME", "")  # by the XDG specification, relative paths are ignored
        folder = Path(base) if Path(base).is_absolute() else Path.home() / ".config"
        return folder / "systemd/user" / f"{name}.service"

    def _require_installed(self, name: str) -> Path:
        """Return the unit file of a service; raise InputError if it does not exist."""
        path = self._path(name)
        if not path.exists():
            raise InputError(
                f"there is no {self._scope} service '{name}': install it, or give the other of --user and --system"
            )
        return path

    def _require_own(self, path: Path) -> None:
        """Raise InputError if the unit file exists and was not written by edgekit."""
        if path.exists() and MARK not in path.read_text(errors="replace"):
            raise InputError(f"'{path}' was not written by edgekit: choose another --name")

    def _require_free(self, path: Path) -> None:
        """Raise InputError if a new unit file would hide one of the same name in another folder.

        systemd reads units from several folders; a package installs its units elsewhere.
        """
        output = self._systemctl("show", path.name, "--property=FragmentPath")  # the file that systemd uses
        used_file = output.strip().removeprefix("FragmentPath=")
        # An existing file at `path` is edgekit's own, see `_require_own`. `used_file` is "" if there is no unit of this
        # name, and `path` if its file was deleted and systemd has not been reloaded.
        if not path.exists() and used_file not in ("", str(path)):
            raise InputError(f"'{used_file}' was not written by edgekit: choose another --name")

    def _require_changeable(self, name: str) -> Path:
        """Return the unit file of a service that the caller may change; raise InputError if there is none."""
        require_root(self._scope)
        path = self._require_installed(name)
        self._require_own(path)
        return path

    def _version(self) -> int:
        """Return the major version of systemd; 0 if it is unknown."""
        found = re.match(r"systemd (\d+)", self._systemctl("--version"))
        return int(found.group(1)) if found else 0

    def _enable_linger(self, name: str) -> list[str]:
        """Let the user's services run while the user is not logged in; return a warning if this is not permitted."""
        user = pwd.getpwuid(os.getuid()).pw_name
        if self._scope == "system" or Path("/var/lib/systemd/linger", user).exists():
            return []
        if _run(["loginctl", "enable-linger"]).returncode == 0:
            return []
        return [f"service '{name}' runs only while you are logged in: sudo loginctl enable-linger {user}"]

    def _systemctl(self, *arguments: str, check: bool = True) -> str:
        """Run systemctl and return its output; with `check`, raise EdgekitError if it fails."""
        done = _run(["systemctl", *self._flags, *arguments])
        if check and done.returncode:
            reason = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
            raise EdgekitError(f"systemctl {' '.join(arguments)}: {reason}")
        return done.stdout


def packaged_services() -> list[str]:
    """Return NAME of each running service edgekit@NAME, which Debian's package brings (packaging/debian)."""
    states = "--state=active,activating,reloading"
    done = _run(["systemctl", "list-units", "--plain", "--no-legend", states, "edgekit@*.service"])
    units = [line.split()[0] for line in done.stdout.splitlines() if line.strip()]
    return [unit.removeprefix("edgekit@").removesuffix(".service") for unit in units]


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a tool of systemd, in English; raise EdgekitError if it does not end in time."""
    environment = {**os.environ, "LC_ALL": "C"}
    # `su` and cron do not set this variable, which `systemctl --user` needs to reach the user's systemd.
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
        raise EdgekitError(f"{command[0]} timed out after {_TOOL_TIMEOUT_S} s: try again") from error


def _existing_groups() -> list[str]:
    """Return those of DEVICE_GROUPS that exist on this machine."""
    # systemd does not start a unit that names a group which the system lacks.
    known = {group.gr_name for group in grp.getgrall()}
    return [group for group in DEVICE_GROUPS if group in known]


def _cache_of(user: str | None) -> Path | None:
    """Return edgekit's cache folder of `user`, None if it does not exist.

    The service uses the downloads in this folder, because a board without internet cannot download them again.
    """
    if user is None:  # root, for which systemd creates a cache, or a user's own service, which ignores the result
        return None
    folder = Path(pwd.getpwnam(user).pw_dir) / ".cache/edgekit"
    return folder if folder.is_dir() else None


def _last_exit(properties: dict[str, str]) -> str | None:
    """Return how the last process of a service ended, from `systemctl show`; None if no process has ended.

    `ExecMainCode` is the kind of end, `ExecMainStatus` the exit code or the number of the signal.
    """
    kind, number = properties.get("ExecMainCode"), properties.get("ExecMainStatus")
    result = properties.get("Result", "")
    if result in ("watchdog", "timeout", "oom-kill", "start-limit-hit"):  # more precise than a signal
        return result
    if kind == _EXITED:
        return f"exit code {number}"
    return f"signal {number}" if kind in _BY_SIGNAL else None


def find_manager(scope: Scope) -> SystemdManager:
    """Return the service manager of this machine.

    Raises:
        InputError: This machine does not run systemd.
    """
    if not systemd_is_running():
        raise InputError(
            "this machine does not run systemd, so edgekit cannot manage a service here: `edgekit run` works in the "
            "foreground under any service manager; to start it at boot, add '@reboot cd FOLDER && PATH/edgekit run "
            "--config edgekit.toml' to 'crontab -e'"
        )
    return SystemdManager(scope)
