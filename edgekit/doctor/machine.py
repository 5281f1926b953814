"""Checks of the machine: board, system, Python, memory, disk, clock, temperature, power, time, services."""

from __future__ import annotations

import re

from edgekit.boards import is_systemd_state, memory_mib
from edgekit.deployed import unusable
from edgekit.doctor.probe import Finding, Probe

_LEAST_PYTHON = (3, 11)
_LOW_MEMORY_MIB = 150
_LOW_CMA_MIB = 64
_LOW_FREE_CMA_MIB = 24
_LOW_DISK_MIB = 300
_FULL_DISK_MIB = 30
_WARM_C = 75.0
_HOT_C = 80.0
# Only the Pi 3B+ lowers its clock at this temperature (Raspberry Pi documentation, "temp_soft_limit").
_SOFT_LIMIT_C = 60.0
_SOFT_LIMIT_BOARD = "Raspberry Pi 3 Model B Plus"
_PROPERTIES = "--property=LoadState,ActiveState,SubState,Result,NRestarts,ExecMainStatus"
_COOL = "cool it: heat sink, fan, or free air"


def board(probe: Probe) -> Finding:
    """Describe the machine; warn about an emulator, because its times are not valid for a board."""
    found = probe.board()
    parts = [found.model or "unknown board", f"{found.processors or '?'} processors", found.architecture]
    parts += [f"{found.memory_total_mib} MiB"] if found.memory_total_mib else []
    text = ", ".join(parts)
    if found.virtualization == "emulator":
        return Finding("board", "warning", f"{text}: an emulator", "measure speed on a real board only")
    return Finding("board", "ok", text)


def system(probe: Probe) -> Finding:
    """Check that onnxruntime has packages for the operating system."""
    found = probe.board()
    text = f"{found.os_release or 'unknown system'}, {found.userland_bits} bit, kernel {found.kernel or 'unknown'}"
    if found.userland_bits != 64:
        cure = "install the 64-bit Raspberry Pi OS" if found.is_raspberry_pi else "install a 64-bit system"
        return Finding("system", "fault", f"{text}: onnxruntime has no 32-bit packages", cure)
    return Finding("system", "ok", text)


def python(probe: Probe) -> Finding:
    """Check that Python is new enough, and on a Raspberry Pi that it can import the system's packages."""
    environment = probe.environment
    version = environment.interpreter.python
    text = f"{version}, {'virtual environment' if environment.in_venv else 'of the system'}"
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers < _LEAST_PYTHON:
        return Finding("python", "fault", f"{text}: older than 3.11", "install Raspberry Pi OS Bookworm or later")
    if probe.board().is_raspberry_pi and environment.in_venv and not environment.system_site_packages:
        cure = environment.system_packages_cure()
        return Finding("python", "warning", f"{text} that hides the system's picamera2", cure)
    return Finding("python", "ok", text)


def memory(probe: Probe) -> Finding:
    """Check that enough memory is free for a model, and enough contiguous memory (CMA) for camera buffers."""
    text = probe.read("proc/meminfo") or ""
    total, available = memory_mib(text, "MemTotal"), memory_mib(text, "MemAvailable")
    cma, cma_free = memory_mib(text, "CmaTotal"), memory_mib(text, "CmaFree")
    if total is None or available is None:
        return Finding("memory", "unknown", "/proc/meminfo cannot be read")
    text = f"{available} of {total} MiB available"
    if available < _LOW_MEMORY_MIB:
        return Finding("memory", "warning", f"{text}: low", "close other programs; the desktop uses most")
    if cma:  # None or 0 on a machine that reserves none
        text += f", CMA {cma_free} of {cma} MiB free"
        if probe.board().is_raspberry_pi and cma < _LOW_CMA_MIB:
            cure = "add dtoverlay=cma,cma-64 to /boot/firmware/config.txt and restart"
            return Finding("memory", "warning", f"{text}: low for camera buffers", cure)
        if cma_free is not None and cma_free < _LOW_FREE_CMA_MIB:
            cure = "stop other programs that use the camera or the display, or use a smaller --camera-size"
            return Finding("memory", "warning", f"{text}: low for camera buffers", cure)
    return Finding("memory", "ok", text)


def disk(probe: Probe) -> Finding:
    """Check the free space of the file system of the home folder, and report if it is read-only."""
    done = probe.run("df", "-Pk", str(probe.home()))
    # The columns are file system, total, used, free (all in KiB), used percentage and mount point.
    row = r"^\S+\s+(?P<total>\d+)\s+\d+\s+(?P<free>\d+)\s+\d+%\s+(?P<mount_point>/.*)"
    match = re.search(row, done.stdout if done else "", re.MULTILINE)
    if match is None:
        return Finding("disk", "unknown", "the command 'df' failed")
    total, free = int(match["total"]) // 1024, int(match["free"]) // 1024
    text = f"{free:,} of {total:,} MiB free"
    # The fields are device, mount point, type and options. Of several mounts at one point, the last one is visible.
    mounts = [line.split(" ") for line in (probe.read("proc/mounts") or "").splitlines()]
    options = [fields[3] for fields in mounts if len(fields) > 3 and fields[1] == match["mount_point"]]
    if options and "ro" in options[-1].split(","):
        text += ", read-only"
    if free < _FULL_DISK_MIB:
        cure = "free some space: sudo apt clean, or sudo journalctl --vacuum-size=50M"
        return Finding("disk", "fault", f"{text}: full", cure)
    if free < _LOW_DISK_MIB:
        return Finding("disk", "warning", f"{text}: low", "free some space: sudo apt clean")
    return Finding("disk", "ok", text)


def governor(probe: Probe) -> Finding:
    """Check the CPU frequency governor."""
    now = probe.conditions()
    if now.governor is None:
        return Finding("clock", "unknown", "this machine reports no governor")
    clock = f"{now.clock_mhz:.0f} MHz" if now.clock_mhz else "unknown"
    highest = f", up to {now.clock_max_mhz:.0f}" if now.clock_max_mhz else ""
    text = f"governor {now.governor}, now {clock}{highest}"
    # On a PC, 'powersave' is the governor that scales the clock.
    driver = probe.line("sys/devices/system/cpu/cpu0/cpufreq/scaling_driver") or ""
    if now.governor == "powersave" and not driver.startswith(("intel_", "amd_")):
        cure = "echo ondemand | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
        return Finding("clock", "warning", f"{text}: fixed at the lowest clock", cure)
    return Finding("clock", "ok", text)


def temperature(probe: Probe) -> Finding:
    """Compare the processor's temperature with the limits at which it slows down."""
    now_c = probe.conditions().temperature_c
    if now_c is None:
        return Finding("temperature", "unknown", "this machine reports no temperature")
    text = f"{now_c:.1f} °C"
    if now_c >= _HOT_C:
        return Finding("temperature", "fault", f"{text}: the board slows down to protect itself", _COOL)
    has_soft_limit = (probe.board().model or "").startswith(_SOFT_LIMIT_BOARD)
    if has_soft_limit and now_c >= _SOFT_LIMIT_C:
        cure = "cool it, or raise the limit: temp_soft_limit=70 in /boot/firmware/config.txt"
        return Finding("temperature", "warning", f"{text}: this board runs at 1.2 instead of 1.4 GHz from 60 °C", cure)
    if now_c >= _WARM_C:
        return Finding("temperature", "warning", f"{text}: near 80 °C, where the board slows down", _COOL)
    return Finding("temperature", "ok", text)


def power(probe: Probe) -> Finding:
    """Check whether the board was throttled or had under-voltage, now or since boot."""
    flags = probe.conditions().throttling
    if flags is None:
        if not probe.board().is_raspberry_pi:
            return Finding("power", "unknown", "only a Raspberry Pi reports it")
        # Once more, for the reason why `conditions` has no flags.
        done = probe.run("vcgencmd", "get_throttled")
        if done is None:
            text, cure = "vcgencmd is not installed or does not respond", "sudo apt install raspi-utils"
            return Finding("power", "unknown", text, cure)
        reason = (done.stderr + done.stdout).strip().partition("\n")[0] or f"exit code {done.returncode}"
        cure = "sudo usermod -aG video $USER, then log in again"
        return Finding("power", "unknown", f"vcgencmd failed: {reason}", cure)
    if not flags.bits:
        return Finding("power", "ok", "never throttled, never under-voltage since boot")
    under_voltage = any("under-voltage" in text for text in (*flags.now, *flags.since_boot))
    cure = "use a better power supply and a short, thick cable" if under_voltage else _COOL
    return Finding("power", "fault" if flags.now else "warning", flags.explain(), cure)


def network_time(probe: Probe) -> Finding:
    """Check that the time was set from the network, because a Raspberry Pi has no clock battery."""
    done = probe.run("timedatectl", "show", "--property=NTPSynchronized", "--value")
    answer = done.stdout.strip() if done and done.returncode == 0 else None
    if answer == "yes":
        return Finding("time", "ok", "set from the network")
    if answer == "no":
        text = "not set from the network: times in results may be wrong"
        return Finding("time", "warning", text, "sudo timedatectl set-ntp true")
    cause = (
        f"failed with exit code {done.returncode}" if done and done.returncode else "is missing or printed no answer"
    )
    text = f"cannot be checked, because timedatectl {cause}"
    return Finding("time", "unknown", text, "compare the output of 'date' with a clock")


def releases(probe: Probe) -> Finding | None:
    """Check that the current release of each deployed service can run; None if nothing is deployed."""
    found = probe.releases()
    for release in found.values():
        fault = unusable(release)
        if fault is not None:
            return Finding("release", "fault", fault.reason, fault.cure)
    texts = [f"{release.name} of service '{name}'" for name, release in found.items()]
    return Finding("release", "ok", ", ".join(texts)) if texts else None


def service(probe: Probe) -> Finding:
    """Return the state of the service `edgekit`, of the system or else of the user, or of Debian's package.

    Of several services edgekit@NAME, which the package brings, it is the one in the worst state.
    """
    for scope in ([], ["--user"]):
        found = _service_state(probe, "edgekit", scope)
        if found is not None:
            return found
    listed = probe.run("systemctl", "list-units", "--all", "--plain", "--no-legend", "edgekit@*.service")
    units = [line.split()[0].removesuffix(".service") for line in (listed.stdout if listed else "").splitlines()]
    # `_service_state` returns no "unknown".
    states = [state for unit in units if (state := _service_state(probe, unit, []))]
    worst_first = sorted(states, key=lambda state: ("fault", "warning", "ok").index(state.status))
    if worst_first:
        return worst_first[0]
    systemd = probe.run("systemctl", "is-system-running")
    if systemd is None or not is_systemd_state(systemd.stdout):
        return Finding("service", "unknown", "no systemd, which `edgekit service` and `edgekit deploy` need")
    return Finding("service", "ok", "none installed")


def _service_state(probe: Probe, unit: str, scope: list[str]) -> Finding | None:
    """Return the state of a unit of the system, or of the user with the scope "--user"; None if it is not installed."""
    done = probe.run("systemctl", *scope, "show", unit, _PROPERTIES)
    if done is None or done.returncode:
        return None
    properties = dict(line.partition("=")[::2] for line in done.stdout.splitlines())  # [::2] leaves out the "="
    if properties.get("LoadState") != "loaded":
        return None
    flag = "".join(f"{word} " for word in scope)
    active, restarts = properties.get("ActiveState", "unknown"), int(properties.get("NRestarts") or 0)
    text = f"{active} ({properties.get('SubState', '?')}), {restarts} restarts"
    if unit != "edgekit":
        text = f"{unit}: {text}"
    log = f"{'' if flag else 'sudo '}journalctl {flag}-u {unit} -n 50"
    if active == "active":
        return Finding("service", "warning", text, log) if restarts else Finding("service", "ok", text)
    # "auto-restart": it has failed, and waits for the next attempt.
    if active == "failed" or properties.get("SubState") == "auto-restart":
        reason = f"{properties.get('Result', '?')}, exit code {properties.get('ExecMainStatus', '?')}"
        return Finding("service", "fault", f"{text}: {reason}", log)
    return Finding("service", "warning", f"{text}: not running", f"systemctl {flag}start {unit}")
