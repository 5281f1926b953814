"""`edgekit run` as a systemd service: the description of a service, and the text of its unit.

`unit_text` is a pure function: facts about the machine are its arguments.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from edgekit.errors import EXIT_USAGE, InputError
from edgekit.options import Options, option

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
# Groups that own cameras, their buffers, the video encoder and pins on Raspberry Pi OS and Debian.
DEVICE_GROUPS = ("video", "render", "gpio")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class ServiceOptions(Options):
    """Which systemd service a command is about."""

    title = "Service"
    name: str = option("--name", "Name of the service.", default="edgekit", metavar="NAME")
    user: bool = option("--user", "A user service. Default for all users except root.", default=False)
    system: bool = option(
        "--system", "A system service, which only root can change. Default for root.", default=False, excludes="--user"
    )

    @property
    def scope(self) -> Scope | None:
        """The given one of user and system; None: the default of the user."""
        return "user" if self.user else "system" if self.system else None


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
        """Check name and folders, and that no text of the unit has a line break or a zero byte."""
        check_name(self.name)
        folders = (self.folder, *self.writable)
        for folder in folders:
            if not folder.is_absolute() or not folder.is_dir():
                raise InputError(f"folder '{folder}' does not exist: create it first")
        for text in (*self.command, *map(str, folders), *self.environment.values()):
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


def check_name(name: str) -> None:
    """Check the name of a service.

    Raises:
        InputError: The name is empty, too long, begins with - _ or . or contains anything but letters, digits and - _ .
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


MARK = "# Written by 'edgekit service install', which also replaces it."

# First version of systemd with RestartSteps= and RestartMaxDelaySec=; Debian Bookworm has 252.
_GROWING_PAUSES_SINCE = 254
# Several times the memory of a headless run on a 1 GB board (docs/how-to/service.md). A leak does not stop the system.
_MEMORY_MAX = "50%"

# Restrictions that a user's systemd can apply.
_SANDBOX = (
    "NoNewPrivileges=yes",
    "LockPersonality=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
    "RestrictNamespaces=yes",
)
# Restrictions that need root. No PrivateTmp: settings may name files in /tmp.
_SYSTEM_SANDBOX = (
    "CapabilityBoundingSet=",
    "ProtectSystem=strict",
    "ProtectHome=read-only",
    "ProtectKernelTunables=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelLogs=yes",
    "ProtectControlGroups=yes",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "DevicePolicy=closed",
)
# Cameras, image processors, shared buffers, the encoder; vcgencmd reaches the firmware through /dev/vcio.
_DEVICES = ("char-video4linux", "char-media", "char-drm", "char-dma_heap", "/dev/vcio", "char-gpiochip")


def unit_text(
    spec: ServiceSpec,
    scope: Scope,
    *,
    groups: Sequence[str] = (),
    systemd_version: int = _GROWING_PAUSES_SINCE,
    udevadm: str | None = None,
    cache: Path | None = None,
) -> str:
    """Return the unit file that runs `spec`.

    Args:
        spec: The service.
        scope: "system", or "user", whose systemd cannot apply all restrictions.
        groups: Supplementary groups of a system service; they must exist on this machine.
        systemd_version: Major version of the systemd that reads the unit.
        udevadm: Path of udevadm, which waits until the devices exist; None: no wait.
        cache: Existing folder of downloads for a system service; None: systemd creates one.
    """
    system = scope == "system"
    # Each section has its lines in order; an empty one is left out.
    sections = {
        "Unit": [
            f"Description=edgekit run ({_escaped_specifiers(spec.name)})",
            "After=network-online.target systemd-udev-trigger.service" if system else "",
            "Wants=network-online.target" if system else "",
            f"StartLimitIntervalSec={STARTS_WINDOW_S}",
            f"StartLimitBurst={MAX_STARTS}",
        ],
        "Service": [
            "Type=notify",
            "NotifyAccess=main",
            f"User={spec.run_as}" if system and spec.run_as else "",
            f"SupplementaryGroups={' '.join(groups)}" if system and groups else "",
            f"WorkingDirectory={_escaped_specifiers(str(spec.folder))}",
            # By default glibc keeps free memory in up to eight arenas per processor: reconnections made a run grow.
            "Environment=MALLOC_ARENA_MAX=2",
            *(f"Environment={quote(f'{name}={value}')}" for name, value in spec.environment.items()),
            # With "-" the service starts also if the wait fails.
            f"ExecStartPre=-{quote(udevadm)} settle --timeout=30" if udevadm else "",
            # The colon switches off the expansion of variables.
            f"ExecStart=:{' '.join(quote(argument) for argument in spec.command)}",
            f"TimeoutStartSec={START_TIMEOUT_S}",
            f"TimeoutStopSec={STOP_TIMEOUT_S}",
            f"WatchdogSec={WATCHDOG_S}",
            "KillMode=mixed",
            *_restart_lines(systemd_version),
            f"MemoryMax={_MEMORY_MAX}",
            *_SANDBOX,
            *(_system_sandbox(spec, cache) if system else ()),
        ],
        "Install": [f"WantedBy={'multi-user' if system else 'default'}.target"],
    }
    text = MARK
    for title, lines in sections.items():
        text += f"\n\n[{title}]\n" + "\n".join(line for line in lines if line)
    return f"{text}\n"


def quote(text: str) -> str:
    """Return `text` as one quoted word of a unit, with systemd's % specifiers escaped."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t")
    return f'"{_escaped_specifiers(escaped)}"'


def _escaped_specifiers(text: str) -> str:
    """Return `text` with each % doubled, because systemd replaces specifiers such as %h."""
    return text.replace("%", "%%")


def _restart_lines(systemd_version: int) -> list[str]:
    """Return the lines of a unit that let systemd restart a failed service, after pauses that grow.

    systemd before `_GROWING_PAUSES_SINCE` makes equal pauses, so long that the limit of starts is never reached.
    """
    lines = ["Restart=on-failure", f"RestartPreventExitStatus={' '.join(map(str, NO_RESTART_EXIT_CODES))}"]
    if systemd_version < _GROWING_PAUSES_SINCE:
        return [*lines, f"RestartSec={STARTS_WINDOW_S / MAX_STARTS:g}"]
    pauses = [f"RestartSec={FIRST_PAUSE_S}", f"RestartSteps={PAUSE_STEPS}", f"RestartMaxDelaySec={LONGEST_PAUSE_S}"]
    return [*lines, *pauses]


def _system_sandbox(spec: ServiceSpec, cache: Path | None) -> list[str]:
    """Return the lines of a unit that restrict a system service to certain folders and devices.

    Downloads are in the existing folder `cache`, or if it is None in /var/cache/edgekit, which systemd creates.
    """
    writable = [str(folder) for folder in (spec.folder, *spec.writable)]
    if cache:
        writable.append(f"-{cache}")  # with "-" the service starts even if the folder was deleted
        own_cache = []
    else:
        own_cache = ["CacheDirectory=edgekit", "Environment=XDG_CACHE_HOME=%C"]  # %C is /var/cache
    return [
        *_SYSTEM_SANDBOX,
        *(f"DeviceAllow={device} rw" for device in _DEVICES),
        f"ReadWritePaths={' '.join(quote(path) for path in writable)}",
        # For data that outlives a run (the MQTT buffer), because home folders are read-only.
        f"StateDirectory=edgekit/{spec.name}",
        *own_cache,
    ]
