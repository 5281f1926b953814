"""The text of a systemd unit. Pure: what is there on the machine comes in as arguments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgekit.device.service.spec import (
    EXITS_FOR_GOOD,
    START_TIMEOUT_S,
    STOP_TIMEOUT_S,
    WATCHDOG_S,
    Scope,
    ServiceSpec,
)

MARK = "# Written by 'edgekit service install', which also replaces it."

# RestartSteps= and RestartMaxDelaySec= came with this version of systemd; Debian Bookworm has 252.
_GROWING_PAUSES_SINCE = 254
# Half of a 1 GB board: several times what a headless run takes (docs/staying-up.md), and the system survives a leak.
_MEMORY_MAX = "50%"

# What any user's service manager may set.
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
# What takes root to set up. No PrivateTmp: settings may name files in /tmp.
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
# Cameras, their image processors, the buffers they share, the encoder; vcio is how vcgencmd asks the firmware.
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
    """Return the unit that runs `spec`.

    Args:
        spec: The service.
        scope: Whose manager reads it; a user's one cannot set up all of the sandbox.
        groups: The groups of this machine that the service needs beside its user's own.
        systemd_version: Of the manager that reads it.
        udevadm: Path of the program that waits until the devices are there.
        cache: An existing folder of downloads that a system service should use instead of one of its own.
    """
    system = scope == "system"
    sections = {
        "Unit": [
            f"Description=edgekit run ({_specifiers(spec.name)})",
            "After=network-online.target systemd-udev-trigger.service" if system else "",
            "Wants=network-online.target" if system else "",
            f"StartLimitIntervalSec={spec.restart.window_s:g}",
            f"StartLimitBurst={spec.restart.burst}",
        ],
        "Service": [
            "Type=notify",
            "NotifyAccess=main",
            f"User={spec.run_as}" if system and spec.run_as else "",
            f"SupplementaryGroups={' '.join(groups)}" if system and groups else "",
            f"WorkingDirectory={_specifiers(str(spec.folder))}",
            *(f"Environment={quote(f'{name}={value}')}" for name, value in spec.environment.items()),
            f"ExecStartPre=-{quote(udevadm)} settle --timeout=30" if udevadm else "",
            # The colon: a dollar sign in an argument is a dollar sign.
            f"ExecStart=:{' '.join(quote(argument) for argument in spec.command)}",
            f"TimeoutStartSec={START_TIMEOUT_S}",
            f"TimeoutStopSec={STOP_TIMEOUT_S}",
            f"WatchdogSec={WATCHDOG_S}",
            "KillMode=mixed",
            *_restart(spec, systemd_version),
            f"MemoryMax={_MEMORY_MAX}",
            *_SANDBOX,
            *(_system_sandbox(spec, cache) if system else ()),
        ],
        "Install": [f"WantedBy={'multi-user' if system else 'default'}.target"],
    }
    blocks = ["\n".join([f"[{title}]", *filter(None, lines)]) for title, lines in sections.items()]
    return f"{MARK}\n\n" + "\n\n".join(blocks) + "\n"


def quote(text: str) -> str:
    """Return `text` as one word of a unit's command or list: quoted, with systemd's % specifiers switched off."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t")
    return f'"{_specifiers(escaped)}"'


def _specifiers(text: str) -> str:
    return text.replace("%", "%%")


def _restart(spec: ServiceSpec, systemd_version: int) -> list[str]:
    policy = spec.restart
    ends = ["Restart=on-failure", f"RestartPreventExitStatus={' '.join(map(str, EXITS_FOR_GOOD))}"]
    if systemd_version >= _GROWING_PAUSES_SINCE:
        pauses = [
            f"RestartSec={policy.first_pause_s:g}",
            f"RestartSteps={policy.steps}",
            f"RestartMaxDelaySec={policy.longest_pause_s:g}",
        ]
    else:
        # One pause for all, and one that never comes near the limit of starts.
        pauses = [f"RestartSec={policy.window_s / policy.burst:g}"]
    return ends + pauses


def _system_sandbox(spec: ServiceSpec, cache: Path | None) -> list[str]:
    writable = [spec.folder, *spec.writable, *([cache] if cache else [])]
    # The system's %C is /var/cache; edgekit looks for `edgekit` in it.
    own_cache = [] if cache else ["CacheDirectory=edgekit", "Environment=XDG_CACHE_HOME=%C"]
    return [
        *_SYSTEM_SANDBOX,
        *(f"DeviceAllow={device} rw" for device in _DEVICES),
        f"ReadWritePaths={' '.join(quote(str(path)) for path in writable)}",
        # What outlives a run (the MQTT buffer) goes here: homes are read-only.
        f"StateDirectory=edgekit/{spec.name}",
        *own_cache,
    ]
