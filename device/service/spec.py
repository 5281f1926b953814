"""What a service is, and what every manager of services can do with one."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from edgekit.errors import EXIT_USAGE, InputError

Scope: TypeAlias = Literal["user", "system"]
State: TypeAlias = Literal["not installed", "stopped", "starting", "running", "waiting to restart", "failed"]

# Until the first frame's result: a Pi 3B+ takes long to import and to start its camera.
START_TIMEOUT_S = 180
# Without a finished frame for so long, the process is taken for frozen. A camera that is being opened again gives none
# either: longer than the source tries (device/sources/live.py).
WATCHDOG_S = 60
# From SIGTERM to SIGKILL; the run itself finishes its frame and flushes within 2 s.
STOP_TIMEOUT_S = 10
# No restart after these: the same settings would fail again.
EXITS_FOR_GOOD = (EXIT_USAGE,)
# What a camera, its memory and the video encoder belong to on Raspberry Pi OS and Debian.
DEVICE_GROUPS = ("video", "render")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class RestartPolicy:
    """After a failure: the pause grows from `first_pause_s` to `longest_pause_s` in `steps` restarts.

    More than `burst` starts in `window_s` are a failure that stays. The pauses alone keep below it, so that a camera
    that is unplugged for a day is found again; it ends what is started over and over from outside.
    """

    first_pause_s: float = 5
    longest_pause_s: float = 60
    steps: int = 5
    burst: int = 20
    window_s: float = 600

    def pause_s(self, restarts: int) -> float:
        """Return the pause before restart number `restarts` (from 0): geometric steps, as systemd's RestartSteps."""
        share = min(restarts / self.steps, 1)
        return float(self.first_pause_s * (self.longest_pause_s / self.first_pause_s) ** share)


@dataclass(frozen=True)
class ServiceSpec:
    """A command to keep running.

    Attributes:
        name: What the service is called.
        command: Program and arguments, not yet quoted for anything.
        folder: Where it runs; it may write there.
        writable: Further folders it may write to.
        environment: Variables it gets beside those every service has.
        run_as: The user a system service runs as; None is root, and the only value for a user's own service.
        restart: When it is started again.
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    writable: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    run_as: str | None = None
    restart: RestartPolicy = RestartPolicy()

    def __post_init__(self) -> None:
        check_name(self.name)
        for folder in (self.folder, *self.writable):
            if not folder.is_absolute() or not folder.is_dir():
                raise InputError(f"folder '{folder}' does not exist: make it first")
            if str(folder) != str(folder).strip() or str(folder).endswith("\\"):
                raise InputError(f"folder '{folder}' ends in a blank or a backslash: choose another")
        for text in (*self.command, *map(str, (self.folder, *self.writable)), *self.environment.values()):
            if any(char in text for char in "\0\n\r"):
                raise InputError(f"{text!r} holds a line break: a service cannot have that in its command")
        for variable in self.environment:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
                raise InputError(f"'{variable}' is no name for an environment variable")


@dataclass(frozen=True)
class ServiceStatus:
    """How a service is: `text` is what it says of itself, `last_exit` the exit code or signal of its latest end."""

    name: str
    manager: str
    state: State
    pid: int | None = None
    restarts: int = 0
    text: str | None = None
    last_exit: str | None = None
    starts_at_boot: bool = False

    def as_document(self) -> dict[str, Any]:
        """Return the fields by name, ready for JSON."""
        return dict(vars(self))


class Manager(Protocol):
    """Keeps services running. Every method raises InputError for a name it does not know."""

    name: str

    def install(self, spec: ServiceSpec) -> list[str]:
        """Put the service in place, replacing one of the same name, and start it; return what a user should know.

        Raises:
            InputError: It may not be installed, or something else has that name.
            StorageError: Its files cannot be written.
            EdgekitError: It does not start.
        """
        ...

    def status(self, name: str) -> ServiceStatus:
        """Return how the service is; "not installed" is a state, not an error."""
        ...

    def restart(self, name: str) -> None:
        """Start the command anew, whatever state the service is in; one step that a caller's death cannot halve.

        Raises:
            InputError: There is none of that name.
            EdgekitError: It does not start.
        """
        ...

    def logs_command(self, name: str, lines: int, follow: bool) -> Sequence[str]:
        """Return the command that prints the latest `lines` of what the service wrote, going on with `follow`."""
        ...

    def remove(self, name: str) -> None:
        """Stop the service and take it away; what it recorded stays."""
        ...


def check_name(name: str) -> None:
    """Refuse what is no name for a service.

    Raises:
        InputError: It is empty, too long, or holds anything but letters, digits and - _ .
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"service name '{name}': use letters, digits and - _ . (64 at most)")


def require_root(scope: Scope) -> None:
    """Refuse a system service to a user who may not have one.

    Raises:
        InputError: The caller is not root.
    """
    if scope == "system" and os.geteuid() != 0:
        raise InputError("a system service needs root: write 'sudo' before the command, or --user")
