"""Description and status of a service, independent of the service manager."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from edgekit.errors import EXIT_USAGE, InputError

Scope: TypeAlias = Literal["user", "system"]
State: TypeAlias = Literal["not installed", "stopped", "starting", "running", "waiting to restart", "failed"]

# Longest time from start to the first result: a Pi 3B+ needs long for the imports and the camera's start.
START_TIMEOUT_S = 180
# Longest time between two finished frames. It must exceed the time in which a lost camera is reopened
# (device/sources/live.py), because no frame is finished meanwhile.
WATCHDOG_S = 60
# Time from SIGTERM to SIGKILL; a run finishes its frame and flushes its outputs within 2 s.
STOP_TIMEOUT_S = 10
# No restart after these exit codes: the same settings would fail again.
NO_RESTART_EXIT_CODES = (EXIT_USAGE,)
# Pauses between restarts after failures: from the first to the longest in geometric steps.
FIRST_PAUSE_S, LONGEST_PAUSE_S, PAUSE_STEPS = 5, 60, 5
# More starts in this time are a permanent failure. Automatic restarts stay below this limit, so that a service is still
# restarted after a camera was unplugged for a day. Repeated restarts by hand can exceed the limit.
MAX_STARTS, STARTS_WINDOW_S = 20, 600
# Groups that own cameras, their buffers and the video encoder on Raspberry Pi OS and Debian.
DEVICE_GROUPS = ("video", "render")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class ServiceSpec:
    """A command that runs as a service.

    Attributes:
        name: Name of the service.
        command: Program and arguments, unquoted.
        folder: Working directory; the service may write to it.
        writable: Further folders that the service may write to.
        environment: Additional environment variables.
        run_as: User of a system service; None is root. Always None for a user service.

    Raises:
        InputError: A name, folder or text is not usable in a systemd unit.
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    writable: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    run_as: str | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        for folder in (self.folder, *self.writable):
            if not folder.is_absolute() or not folder.is_dir():
                raise InputError(f"folder '{folder}' does not exist: create it first")
        for text in (*self.command, *map(str, (self.folder, *self.writable)), *self.environment.values()):
            if any(char in text for char in "\0\n\r"):
                raise InputError(f"{text!r} contains a line break, which a systemd unit does not allow: remove it")


@dataclass(frozen=True)
class ServiceStatus:
    """State of a service. `text` is the status text that it has sent, `last_exit` the end of its last process."""

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


def check_name(name: str) -> None:
    """Check the name of a service.

    Raises:
        InputError: The name is empty, too long, or contains anything but letters, digits and - _ .
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"service name '{name}' is not valid: use letters, digits and - _ . (64 at most)")


def require_root(scope: Scope) -> None:
    """Check that the caller may change services of this scope.

    Raises:
        InputError: The scope is "system" and the caller is not root.
    """
    if scope == "system" and os.geteuid() != 0:
        raise InputError("a system service needs root: write 'sudo' before the command, or use --user")
