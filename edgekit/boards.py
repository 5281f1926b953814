"""What this machine is, and the state it is in: a frame rate without them means nothing.

`read_board` gives what stays (model, processor, system), `read_conditions` what changes (clock, temperature,
throttling). Everything comes from files below `root` and from one firmware tool, so that text captured on a board can
be replayed. What a machine does not tell is None, never an exception and never a guess.
"""

from __future__ import annotations

import platform
import re
import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

Virtualization: TypeAlias = Literal["none", "virtual machine", "emulator"]
RunTool: TypeAlias = Callable[[Sequence[str]], str | None]


@dataclass(frozen=True)
class Interpreter:
    """The Python that runs edgekit: what a file below `root` cannot tell."""

    architecture: str = field(default_factory=platform.machine)
    userland_bits: int = 8 * struct.calcsize("P")
    python: str = field(default_factory=platform.python_version)


@dataclass(frozen=True)
class Board:
    """What this machine is.

    `model` is the board's name from its device tree, on a PC the processor's name. `cpu` is the core's name,
    `cpu_part` its number (0xd03) on ARM. `architecture` is what `uname -m` says, `userland_bits` the width of the
    running Python: 32 on a 64-bit kernel means that onnxruntime has no wheel. `virtualization` is "emulator" where
    another machine's instructions are imitated, so that no time measured is a board's time.
    """

    model: str | None
    cpu: str | None
    cpu_part: str | None
    processors: int | None
    architecture: str
    userland_bits: int
    memory_total_mib: int | None
    os_release: str | None
    kernel: str | None
    python: str
    virtualization: Virtualization | None

    @property
    def is_raspberry_pi(self) -> bool:
        """Whether it is a Raspberry Pi, of whatever model."""
        return (self.model or "").startswith("Raspberry Pi")

    def as_document(self) -> dict[str, Any]:
        """Return the fields by name, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Throttling:
    """The firmware's throttle flags of a Raspberry Pi, as the number that `vcgencmd get_throttled` prints."""

    bits: int

    @property
    def now(self) -> tuple[str, ...]:
        """What slows the board at this moment, in words."""
        return tuple(text for bit, text in _THROTTLE_BITS.items() if self.bits >> bit & 1)

    @property
    def since_boot(self) -> tuple[str, ...]:
        """What has slowed the board since it was switched on, in words."""
        return tuple(text for bit, text in _THROTTLE_BITS.items() if self.bits >> (bit + _SINCE_BOOT_SHIFT) & 1)

    def explain(self) -> str:
        """Return one line for people."""
        if not self.now and not self.since_boot:
            return "not throttled"
        parts = [f"now: {', '.join(self.now)}"] if self.now else []
        parts += [f"since boot: {', '.join(self.since_boot)}"] if self.since_boot else []
        return "; ".join(parts)


@dataclass(frozen=True)
class Conditions:
    """The state of the machine at one moment.

    `clock_mhz` is measured by the firmware where `clock_source` is "firmware"; from "cpufreq" it is only what the
    kernel asked for, which a throttled Raspberry Pi does not give (raspberrypi/linux#2986). Clock limits and governor
    are those of the first processor.
    """

    temperature_c: float | None
    clock_mhz: float | None
    clock_source: Literal["firmware", "cpufreq", "cpuinfo"] | None
    clock_min_mhz: float | None
    clock_max_mhz: float | None
    governor: str | None
    throttling: Throttling | None
    memory_available_mib: int | None
    load_1min: float | None

    def as_document(self) -> dict[str, Any]:
        """Return the fields by name, ready for JSON; the throttle flags as number and in words."""
        document = asdict(self)
        if self.throttling is not None:
            document["throttling"] = {
                "flags": f"{self.throttling.bits:#x}",
                "now": list(self.throttling.now),
                "since_boot": list(self.throttling.since_boot),
            }
        return document


def read_board(root: Path = Path("/"), interpreter: Interpreter | None = None) -> Board:
    """Return what the machine whose files lie below `root` is."""
    interpreter = interpreter or Interpreter()
    cpuinfo = _read(root / "proc/cpuinfo") or ""
    cpu, part = _cpu(cpuinfo)
    return Board(
        model=_device_tree(root, "model") or _cpuinfo_value(cpuinfo, "Model") or cpu,
        cpu=cpu,
        cpu_part=part,
        processors=len(re.findall(r"^processor\s*:", cpuinfo, re.MULTILINE)) or None,
        architecture=interpreter.architecture,
        userland_bits=interpreter.userland_bits,
        memory_total_mib=_memory_mib(root, "MemTotal"),
        os_release=_os_release(root),
        kernel=_line(root / "proc/sys/kernel/osrelease"),
        python=interpreter.python,
        virtualization=_virtualization(root, interpreter.architecture, cpuinfo),
    )


def run_tool(arguments: Sequence[str]) -> str | None:
    """Return what a small system tool prints, or None where it is missing, fails or hangs."""
    tool = shutil.which(arguments[0])
    if tool is None:
        return None
    try:
        done = subprocess.run(
            [tool, *arguments[1:]],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=_TOOL_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def read_conditions(root: Path = Path("/"), run: RunTool = run_tool) -> Conditions:
    """Return the state the machine is in now; `run` executes the firmware's tool `vcgencmd`.

    With a `run` that only answers None nothing but files is read: the clock is then what the kernel asked for, and the
    throttle flags come from sysfs, where Raspberry Pi's kernel shows them, or are the power supply's alone.
    """
    cpufreq = root / "sys/devices/system/cpu/cpu0/cpufreq"
    clock_mhz, clock_source = _clock(root, cpufreq, run)
    load = _line(root / "proc/loadavg")
    return Conditions(
        temperature_c=_temperature_c(root),
        clock_mhz=clock_mhz,
        clock_source=clock_source,
        clock_min_mhz=_scaled(_line(cpufreq / "scaling_min_freq"), 1e-3),
        clock_max_mhz=_scaled(_line(cpufreq / "scaling_max_freq"), 1e-3),
        governor=_line(cpufreq / "scaling_governor"),
        throttling=_throttling(root, run),
        memory_available_mib=_memory_mib(root, "MemAvailable"),
        load_1min=_scaled(load.split()[0], 1) if load else None,
    )


def parse_throttled(text: str | None) -> Throttling | None:
    """Return the flags in `throttled=0x50005` (vcgencmd) or `50005` (sysfs, hexadecimal too), None for other text."""
    match = re.fullmatch(r"(?:throttled=)?(?:0x)?([0-9a-fA-F]{1,8})", (text or "").strip())
    return Throttling(int(match.group(1), 16)) if match else None


_TOOL_TIMEOUT_S = 5

# Bits of get_throttled (Raspberry Pi documentation, "vcgencmd"); the same 16 bits higher mean: has happened since boot.
_SINCE_BOOT_SHIFT = 16
_THROTTLE_BITS = {
    0: "under-voltage (weak power supply or cable)",
    1: "clock capped",
    2: "throttled",
    3: "soft temperature limit",
}

# MIDR part numbers of implementer 0x41 (Arm).
_ARM_PARTS = {
    0xB76: "ARM1176",
    0xC07: "Cortex-A7",
    0xD03: "Cortex-A53",
    0xD04: "Cortex-A35",
    0xD05: "Cortex-A55",
    0xD07: "Cortex-A57",
    0xD08: "Cortex-A72",
    0xD09: "Cortex-A73",
    0xD0A: "Cortex-A75",
    0xD0B: "Cortex-A76",
    0xD0C: "Neoverse-N1",
    0xD40: "Neoverse-V1",
    0xD49: "Neoverse-N2",
}
_ARM = 0x41

# Sensors that sit in the processor; others (acpitz, drives, radios) measure something else.
_CPU_ZONES = ("cpu-thermal", "cpu_thermal", "soc-thermal", "soc_thermal", "x86_pkg_temp")
_CPU_SENSORS = ("coretemp", "k10temp", "cpu_thermal")


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None


def _line(path: Path) -> str | None:
    text = _read(path)
    return text.strip("\0\n ") or None if text else None


def _scaled(text: str | None, factor: float) -> float | None:
    try:
        return round(float(text) * factor, 3) if text else None
    except ValueError:
        return None


def _device_tree(root: Path, name: str) -> str | None:
    # Not /proc/device-tree: that is a link to this folder, and one that a test cannot replace.
    return _line(root / "sys/firmware/devicetree/base" / name)


def _cpuinfo_value(cpuinfo: str, key: str) -> str | None:
    match = re.search(rf"^{re.escape(key)}\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return match.group(1).strip() if match else None


def _cpu(cpuinfo: str) -> tuple[str | None, str | None]:
    implementer, part = _cpuinfo_value(cpuinfo, "CPU implementer"), _cpuinfo_value(cpuinfo, "CPU part")
    if implementer is None or part is None:
        return _cpuinfo_value(cpuinfo, "model name"), None
    try:
        known = _ARM_PARTS.get(int(part, 16)) if int(implementer, 16) == _ARM else None
    except ValueError:
        known = None
    return known or _cpuinfo_value(cpuinfo, "model name"), part


def _memory_mib(root: Path, key: str) -> int | None:
    match = re.search(rf"^{key}:\s*(\d+) kB", _read(root / "proc/meminfo") or "", re.MULTILINE)
    return int(match.group(1)) // 1024 if match else None


def _os_release(root: Path) -> str | None:
    match = re.search(r'^PRETTY_NAME=["\']?([^"\'\n]*)', _read(root / "etc/os-release") or "", re.MULTILINE)
    return match.group(1) or None if match else None


def _clock(
    root: Path, cpufreq: Path, run: RunTool
) -> tuple[float | None, Literal["firmware", "cpufreq", "cpuinfo"] | None]:
    measured = re.search(r"^frequency\(\d+\)=(\d+)$", run(["vcgencmd", "measure_clock", "arm"]) or "", re.MULTILINE)
    if measured and int(measured.group(1)) > 0:
        return _scaled(measured.group(1), 1e-6), "firmware"
    asked_mhz = _scaled(_line(cpufreq / "scaling_cur_freq"), 1e-3)
    if asked_mhz is not None:
        return asked_mhz, "cpufreq"
    told_mhz = _scaled(_cpuinfo_value(_read(root / "proc/cpuinfo") or "", "cpu MHz"), 1)
    return told_mhz, None if told_mhz is None else "cpuinfo"


def _temperature_c(root: Path) -> float | None:
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        if _line(zone / "type") in _CPU_ZONES:
            return _scaled(_line(zone / "temp"), 1e-3)
    for sensor in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if _line(sensor / "name") in _CPU_SENSORS:
            return _scaled(_line(sensor / "temp1_input"), 1e-3)
    return None


def _throttling(root: Path, run: RunTool) -> Throttling | None:
    told = parse_throttled(run(["vcgencmd", "get_throttled"]))
    return (
        told or parse_throttled(_line(root / "sys/devices/platform/soc/soc:firmware/get_throttled")) or _voltage(root)
    )


def _voltage(root: Path) -> Throttling | None:
    # Debian's own kernel shows of all flags only this one (drivers/hwmon/raspberrypi-hwmon.c).
    for sensor in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if _line(sensor / "name") == "rpi_volt":
            alarm = _line(sensor / "in0_lcrit_alarm")
            return Throttling(int(alarm)) if alarm in ("0", "1") else None
    return None


def _virtualization(root: Path, architecture: str, cpuinfo: str) -> Virtualization | None:
    kernel_family = _family(_line(root / "proc/sys/kernel/arch"))
    own_family = _family(architecture)
    if _user_emulator(root) or (kernel_family and own_family and kernel_family != own_family):
        return "emulator"
    x86 = "vendor_id" in cpuinfo
    if x86 and (own_family == "arm" or "QEMU TCG" in cpuinfo):
        return "emulator"
    if x86:
        return "virtual machine" if re.search(r"^flags\s*:.*\bhypervisor\b", cpuinfo, re.MULTILINE) else "none"
    if _device_tree(root, "model") == "linux,dummy-virt" or (root / "sys/firmware/qemu_fw_cfg").exists():
        return "virtual machine"
    # A Raspberry Pi's own firmware writes this into the kernel's command line; a device tree alone can be anyone's.
    booted_by_firmware = "vc_mem.mem_base=" in (_read(root / "proc/cmdline") or "")
    return "none" if booted_by_firmware and own_family == "arm" else None


def _user_emulator(root: Path) -> bool:
    # An emulator answers for /proc/self in its guest's name; the same file by this name is still the kernel's answer.
    try:
        return (root / "proc/thread-self/exe").readlink().name.startswith("qemu-")
    except OSError:
        return False


def _family(architecture: str | None) -> str | None:
    if architecture is None:
        return None
    if architecture.startswith(("arm", "aarch64")):
        return "arm"
    return "x86" if re.fullmatch(r"x86_64|i[3-6]86", architecture) else architecture
