"""Checks of the machine itself: board, system, Python, memory, disk, clock, heat, power, time."""

from __future__ import annotations

import re

from edgekit.doctor.probe import Finding, Probe, is_raspberry_pi

_LEAST_PYTHON = (3, 11)
_LOW_MEMORY_MIB = 150
_LOW_CMA_MIB = 64
_LOW_FREE_CMA_MIB = 24
_LOW_DISK_MIB = 300
_NO_DISK_MIB = 30
_WARM_C = 75.0
_HOT_C = 80.0
# The Pi 3B+ alone lowers its clock this early (Raspberry Pi documentation, "temp_soft_limit").
_SOFT_LIMIT_C = 60.0
_SOFT_LIMIT_BOARD = "Raspberry Pi 3 Model B Plus"


def board(probe: Probe) -> Finding:
    """Say what the machine is, and that an emulator's times are none."""
    found = probe.board()
    parts = [found.model or "unknown board", f"{found.processors or '?'} processors", found.architecture]
    parts += [f"{found.memory_total_mib} MiB"] if found.memory_total_mib else []
    text = ", ".join(parts)
    if found.virtualization == "emulator":
        return Finding("board", "warning", f"{text}: an emulator", "measure speed on a real board only")
    return Finding("board", "ok", text)


def system(probe: Probe) -> Finding:
    """Say whether the system is one that onnxruntime has packages for."""
    found = probe.board()
    text = f"{found.os_release or 'unknown system'}, {found.userland_bits} bit, kernel {found.kernel or 'unknown'}"
    if found.userland_bits != 64:
        cure = "install the 64-bit Raspberry Pi OS" if is_raspberry_pi(found) else "install a 64-bit system"
        return Finding("system", "fault", f"{text}: onnxruntime has no 32-bit packages", cure)
    return Finding("system", "ok", text)


def python(probe: Probe) -> Finding:
    """Say whether Python is new enough, and on a Pi whether it sees the system's packages."""
    environment = probe.environment
    version = environment.interpreter.python
    text = f"{version}, {'virtual environment' if environment.in_venv else 'the system itself'}"
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers < _LEAST_PYTHON:
        return Finding("python", "fault", f"{text}: older than 3.11", "take Raspberry Pi OS Bookworm or later")
    if is_raspberry_pi(probe.board()) and environment.in_venv and not environment.system_site_packages:
        return Finding(
            "python",
            "warning",
            f"{text} that does not see the system's picamera2",
            "make it anew: python3 -m venv --clear --system-site-packages ~/edgekit-env",
        )
    return Finding("python", "ok", text)


def memory(probe: Probe) -> Finding:
    """Say whether there is room for a model, and on a Pi contiguous room (CMA) for the camera's buffers."""
    text = probe.read("proc/meminfo") or ""
    total, available, cma, cma_free = (_mib(text, key) for key in ("MemTotal", "MemAvailable", "CmaTotal", "CmaFree"))
    if total is None or available is None:
        return Finding("memory", "unknown", "the kernel does not tell")
    said = f"{available} of {total} MiB available"
    if available < _LOW_MEMORY_MIB:
        return Finding("memory", "warning", f"{said}: little", "close other programs; the desktop takes most")
    if cma:
        said += f", CMA {cma_free} of {cma} MiB free"
        if is_raspberry_pi(probe.board()) and cma < _LOW_CMA_MIB:
            cure = "add dtoverlay=cma,cma-64 to /boot/firmware/config.txt and restart"
            return Finding("memory", "warning", f"{said}: little for a camera's buffers", cure)
        if cma_free is not None and cma_free < _LOW_FREE_CMA_MIB:
            cure = "stop other programs that use the camera or the display, or take smaller pictures"
            return Finding("memory", "warning", f"{said}: little for a camera's buffers", cure)
    return Finding("memory", "ok", said)


def disk(probe: Probe) -> Finding:
    """Say how much room the root file system has, and whether it can be written."""
    done = probe.run("df", "-Pk", "/")
    match = re.search(r"^\S+\s+(\d+)\s+\d+\s+(\d+)\s+\d+%", done.out if done else "", re.MULTILINE)
    if match is None:
        return Finding("disk", "unknown", "df does not tell")
    total, free = (int(number) // 1024 for number in match.groups())
    said = f"{free:,} of {total:,} MiB free"
    root = re.search(r"^\S+ / \S+ (\S+)", probe.read("proc/mounts") or "", re.MULTILINE)
    if root and "ro" in root.group(1).split(","):
        said += ", read-only"
    if free < _NO_DISK_MIB:
        return Finding(
            "disk", "fault", f"{said}: full", "free some space: sudo apt clean, or sudo journalctl --vacuum-size=50M"
        )
    if free < _LOW_DISK_MIB:
        return Finding("disk", "warning", f"{said}: little", "free some space: sudo apt clean")
    return Finding("disk", "ok", said)


def governor(probe: Probe) -> Finding:
    """Say how the clock is governed."""
    now = probe.conditions()
    if now.governor is None:
        return Finding("clock", "unknown", "this machine does not tell its governor")
    clock = f"{now.clock_mhz:.0f} MHz" if now.clock_mhz else "unknown"
    highest = f", up to {now.clock_max_mhz:.0f}" if now.clock_max_mhz else ""
    said = f"governor {now.governor}, now {clock}{highest}"
    # Of processors whose driver has only these two, "powersave" is the one that scales.
    scales_itself = (probe.line("sys/devices/system/cpu/cpu0/cpufreq/scaling_driver") or "").startswith(
        ("intel_", "amd_")
    )
    if now.governor == "powersave" and not scales_itself:
        cure = "echo ondemand | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
        return Finding("clock", "warning", f"{said}: held at its lowest", cure)
    return Finding("clock", "ok", said)


def temperature(probe: Probe) -> Finding:
    """Say how hot the processor is, against the limit at which it slows down."""
    now = probe.conditions().temperature_c
    if now is None:
        return Finding("temperature", "unknown", "this machine does not tell it")
    said = f"{now:.1f} °C"
    if now >= _HOT_C:
        return Finding(
            "temperature", "fault", f"{said}: the board slows down to protect itself", "cool it: heat sink, fan, air"
        )
    early = (probe.board().model or "").startswith(_SOFT_LIMIT_BOARD)
    if early and now >= _SOFT_LIMIT_C:
        cure = "cool it, or move the limit: temp_soft_limit=70 in /boot/firmware/config.txt"
        return Finding("temperature", "warning", f"{said}: this board runs at 1.2 instead of 1.4 GHz from 60 °C", cure)
    if now >= _WARM_C:
        return Finding(
            "temperature", "warning", f"{said}: near 80 °C, where it slows down", "cool it: heat sink, fan, air"
        )
    return Finding("temperature", "ok", said)


def power(probe: Probe) -> Finding:
    """Say whether the board slowed down or lacked voltage, now or since it was switched on."""
    flags = probe.conditions().throttling
    if flags is None:
        if is_raspberry_pi(probe.board()):
            return Finding(
                "power", "unknown", "the firmware was not asked", "sudo apt install raspi-utils (for vcgencmd)"
            )
        return Finding("power", "unknown", "only a Raspberry Pi tells")
    if not flags.bits:
        return Finding("power", "ok", "never throttled, never under-voltage since it was switched on")
    said = flags.explain()
    weak = any("under-voltage" in text for text in (*flags.now, *flags.since_boot))
    cure = "a better power supply and a short, thick cable" if weak else "cool it: heat sink, fan, air"
    return Finding("power", "fault" if flags.now else "warning", said, cure)


def network_time(probe: Probe) -> Finding:
    """Say whether the clock was set from the network: a Pi has no battery for it."""
    done = probe.run("timedatectl", "show", "--property=NTPSynchronized", "--value")
    answer = done.out.strip() if done and done.code == 0 else None
    if answer == "yes":
        return Finding("time", "ok", "set from the network")
    if answer == "no":
        return Finding(
            "time",
            "warning",
            "not set from the network: times in results may be wrong",
            "sudo timedatectl set-ntp true",
        )
    return Finding("time", "unknown", "timedatectl does not tell")


def _mib(meminfo: str, key: str) -> int | None:
    match = re.search(rf"^{key}:\s*(\d+) kB", meminfo, re.MULTILINE)
    return int(match.group(1)) // 1024 if match else None
