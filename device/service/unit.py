"""Text of a systemd unit. `unit_text` is a pure function: facts about the machine are its arguments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgekit.device.service.spec import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    MAX_STARTS,
    NO_RESTART_EXIT_CODES,
    PAUSE_STEPS,
    START_TIMEOUT_S,
    STARTS_WINDOW_S,
    STOP_TIMEOUT_S,
    WATCHDOG_S,
    Scope,
    ServiceSpec,
)

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
_DEVICES = ("char-video4linux", "char-media", "char-drm", "char-dma_heap", "/dev/vcio")


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
    sections = {
        "Unit": [
            f"Description=edgekit run ({_specifiers(spec.name)})",
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
            f"WorkingDirectory={_specifiers(str(spec.folder))}",
            # By default glibc keeps free memory in up to eight arenas per processor: reconnections made a run grow.
            "Environment=MALLOC_ARENA_MAX=2",
            *(f"Environment={quote(f'{name}={value}')}" for name, value in spec.environment.items()),
            f"ExecStartPre=-{quote(udevadm)} settle --timeout=30" if udevadm else "",
            # The colon switches off the expansion of variables.
            f"ExecStart=:{' '.join(quote(argument) for argument in spec.command)}",
            f"TimeoutStartSec={START_TIMEOUT_S}",
            f"TimeoutStopSec={STOP_TIMEOUT_S}",
            f"WatchdogSec={WATCHDOG_S}",
            "KillMode=mixed",
            *_restart(systemd_version),
            f"MemoryMax={_MEMORY_MAX}",
            *_SANDBOX,
            *(_system_sandbox(spec, cache) if system else ()),
        ],
        "Install": [f"WantedBy={'multi-user' if system else 'default'}.target"],
    }
    blocks = ["\n".join([f"[{title}]", *filter(None, lines)]) for title, lines in sections.items()]
    return f"{MARK}\n\n" + "\n\n".join(blocks) + "\n"


def quote(text: str) -> str:
    """Return `text` as one quoted word of a unit, with systemd's % specifiers escaped."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t")
    return f'"{_specifiers(escaped)}"'


def _specifiers(text: str) -> str:
    return text.replace("%", "%%")


def _restart(systemd_version: int) -> list[str]:
    ends = ["Restart=on-failure", f"RestartPreventExitStatus={' '.join(map(str, NO_RESTART_EXIT_CODES))}"]
    if systemd_version >= _GROWING_PAUSES_SINCE:
        pauses = [
            f"RestartSec={FIRST_PAUSE_S}",
            f"RestartSteps={PAUSE_STEPS}",
            f"RestartMaxDelaySec={LONGEST_PAUSE_S}",
        ]
    else:
        # One constant pause, long enough that the limit of starts is never reached.
        pauses = [f"RestartSec={STARTS_WINDOW_S / MAX_STARTS:g}"]
    return ends + pauses


def _system_sandbox(spec: ServiceSpec, cache: Path | None) -> list[str]:
    # Without the cache, which may be cleared, the service starts, too: "-".
    writable = [*map(str, (spec.folder, *spec.writable)), *([f"-{cache}"] if cache else [])]
    # %C of the system is /var/cache; edgekit uses its subfolder `edgekit`.
    own_cache = [] if cache else ["CacheDirectory=edgekit", "Environment=XDG_CACHE_HOME=%C"]
    return [
        *_SYSTEM_SANDBOX,
        *(f"DeviceAllow={device} rw" for device in _DEVICES),
        f"ReadWritePaths={' '.join(quote(path) for path in writable)}",
        # The folder for data that outlives a run (the MQTT buffer), because home folders are read-only.
        f"StateDirectory=edgekit/{spec.name}",
        *own_cache,
    ]
