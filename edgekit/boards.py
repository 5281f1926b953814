"""Description of this machine and of its present conditions, which are reported beside every measured frame rate.

`read_board` returns what is constant (model, processor, system), `read_conditions` what varies (clock, temperature,
throttling). All values come from files below `root` and from one firmware tool, so that text captured on a board can
be replayed. A value that the machine does not provide is None.

>>> read_board().model
'Raspberry Pi 3 Model B Plus Rev 1.3'
"""

from __future__ import annotations

import platform
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from subprocess import CompletedProcess

Virtualization: TypeAlias = Literal["none", "virtual machine", "emulator"]
RunTool: TypeAlias = Callable[[Sequence[str]], str | None]


@dataclass(frozen=True)
class Interpreter:
    """The Python that runs edgekit. Its values come from the process itself, not from files below `root`."""

    architecture: str = field(default_factory=platform.machine)
    userland_bits: int = 8 * struct.calcsize("P")
    python: str = field(default_factory=platform.python_version)


@dataclass(frozen=True)
class Board:
    """Constant properties of a machine; None where unknown.

    Attributes:
        model: Name of the board from its device tree; on a PC the name of the processor.
        cpu: Name of the CPU core, such as Cortex-A53.
        cpu_part: Part number of an ARM core, such as 0xd03.
        processors: Number of logical processors.
        architecture: Output of `uname -m`.
        userland_bits: Pointer size of the running Python; 32 on a 64-bit kernel means that onnxruntime has no wheel.
        memory_total_mib: Memory in MiB.
        os_release: Name and version of the system.
        kernel: Release of the kernel.
        python: Version of the running Python.
        virtualization: "emulator" if the processor is emulated; times measured on an emulator are not a board's times.
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
        """Whether the machine is a Raspberry Pi of any model."""
        return (self.model or "").startswith("Raspberry Pi")


@dataclass(frozen=True)
class Throttling:
    """Throttle flags of a Raspberry Pi's firmware; `bits` is the number that `vcgencmd get_throttled` prints."""

    bits: int

    @property
    def now(self) -> tuple[str, ...]:
        """Names of the flags that are set now."""
        return tuple(text for bit, text in _THROTTLE_BITS.items() if (self.bits >> bit) & 1)

    @property
    def since_boot(self) -> tuple[str, ...]:
        """Names of the flags that were set at any time since boot."""
        return tuple(text for bit, text in _THROTTLE_BITS.items() if (self.bits >> _SINCE_BOOT_SHIFT >> bit) & 1)

    def explain(self) -> str:
        """Return the flags that are set now and those since boot as one line of text."""
        return throttle_text(self.now, self.since_boot)


@dataclass(frozen=True)
class Conditions:
    """State of the machine at one moment; None where unknown.

    `clock_mhz` is measured by the firmware if `clock_source` is "firmware". From "cpufreq" it is the clock that the
    kernel requested; a throttled Raspberry Pi runs slower than that (raspberrypi/linux#2986). Clock limits and governor
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
        """Return the fields by name, ready for JSON; the throttle flags as a number and by name."""
        document = asdict(self)
        if self.throttling is not None:
            document["throttling"] = {
                "flags": f"{self.throttling.bits:#x}",
                "now": list(self.throttling.now),
                "since_boot": list(self.throttling.since_boot),
            }
        return document


def read_board(root: Path = Path("/"), interpreter: Interpreter | None = None) -> Board:
    """Return the description of the machine whose system files are below `root`."""
    interpreter = interpreter or Interpreter()
    cpuinfo = _read(root / "proc/cpuinfo") or ""
    cpu, part = _cpu(cpuinfo)
    return Board(
        # A PC has no device tree: its model is the name of the processor.
        model=_device_tree(root, "model") or _cpuinfo_value(cpuinfo, "Model") or cpu,
        cpu=cpu,
        cpu_part=part,
        processors=len(re.findall(r"^processor\s*:", cpuinfo, re.MULTILINE)) or None,  # 0: not listed
        architecture=interpreter.architecture,
        userland_bits=interpreter.userland_bits,
        memory_total_mib=_memory_mib(root, "MemTotal"),
        os_release=_os_release(root),
        kernel=_line(root / "proc/sys/kernel/osrelease"),
        python=interpreter.python,
        virtualization=_virtualization(root, interpreter.architecture, cpuinfo),
    )


def call_tool(arguments: Sequence[str], timeout_s: float = 5) -> CompletedProcess[str] | None:
    """Return the result of a system tool, whatever its exit code; None if it is missing or times out."""
    import shutil
    import subprocess

    tool = shutil.which(arguments[0])
    if tool is None:
        return None
    try:
        return subprocess.run(
            [tool, *arguments[1:]],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=timeout_s,
        )
    except (OSError, subprocess.SubprocessError):
        return None


def run_tool(arguments: Sequence[str]) -> str | None:
    """Return the output of a system tool; None if it is missing, fails or times out."""
    done = call_tool(arguments)
    return done.stdout if done is not None and done.returncode == 0 else None


def read_conditions(root: Path = Path("/"), run: RunTool = run_tool) -> Conditions:
    """Return the present state of the machine; `run` executes the firmware tool `vcgencmd`.

    If `run` returns None, only files are read. The clock is then the one that the kernel requested. The throttle flags
    come from sysfs; Raspberry Pi's kernel has all of them there, Debian's kernel only the under-voltage alarm.
    """
    cpufreq = root / "sys/devices/system/cpu/cpu0/cpufreq"
    clock_mhz, clock_source = _clock(root, cpufreq, run)
    load = _line(root / "proc/loadavg")
    return Conditions(
        temperature_c=_temperature_c(root),
        clock_mhz=clock_mhz,
        clock_source=clock_source,
        clock_min_mhz=_scaled(_line(cpufreq / "scaling_min_freq"), 1e-3),  # from kHz
        clock_max_mhz=_scaled(_line(cpufreq / "scaling_max_freq"), 1e-3),  # from kHz
        governor=_line(cpufreq / "scaling_governor"),
        throttling=_throttling(root, run),
        memory_available_mib=_memory_mib(root, "MemAvailable"),
        load_1min=_scaled(load.split()[0], factor=1) if load else None,
    )


def parse_throttled(text: str | None) -> Throttling | None:
    """Return the flags in `throttled=0x50005` (vcgencmd) or `50005` (sysfs, also hexadecimal); None for other text."""
    match = re.fullmatch(r"(?:throttled=)?(?:0x)?([0-9a-fA-F]{1,8})", (text or "").strip())
    return Throttling(int(match.group(1), 16)) if match else None


def throttle_text(now: Sequence[str], since_boot: Sequence[str]) -> str:
    """Return the names of throttle flags as one line of text."""
    times = {"now": now, "since boot": since_boot}
    parts = [f"{when}: {', '.join(flags)}" for when, flags in times.items() if flags]
    return "; ".join(parts) or "not throttled"


def is_systemd_state(printed: str) -> bool:
    """Return whether systemd manages the services of a machine, from what `systemctl is-system-running` printed.

    It is "offline" where another program is process 1, such as in a container; nothing: there is no systemctl.
    """
    return printed.strip() not in ("", "offline")


def systemd_is_running() -> bool:
    """Return whether systemd is this machine's service manager."""
    import shutil

    # The exit code is 1 for "degraded" and "starting" too.
    done = call_tool(["systemctl", "is-system-running"])
    if done is None:  # systemctl is missing, or timed out
        return shutil.which("systemctl") is not None and Path("/run/systemd/system").is_dir()
    return is_systemd_state(done.stdout)


# Bits of get_throttled (Raspberry Pi documentation, "vcgencmd"). The same flags, shifted by 16 bits, mean "since boot".
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

# Sensors inside the processor; others (acpitz, drives, radios) measure something else.
_CPU_ZONES = ("cpu-thermal", "cpu_thermal", "soc-thermal", "soc_thermal", "x86_pkg_temp")
_CPU_SENSORS = ("coretemp", "k10temp", "cpu_thermal")


def memory_mib(meminfo: str, key: str) -> int | None:
    """Return the value of a line of /proc/meminfo, such as MemAvailable."""
    match = re.search(rf"^{key}:\s*(\d+) kB", meminfo, re.MULTILINE)
    return int(match.group(1)) // 1024 if match else None


def _read(path: Path) -> str | None:
    """Return the text of a file; None if it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None


def _line(path: Path) -> str | None:
    """Return the text of a one-line file; None if it cannot be read or is empty."""
    text = _read(path) or ""
    return text.strip("\0\n ") or None  # a file of the device tree ends in NUL


def _scaled(text: str | None, factor: float) -> float | None:
    """Return the number in `text` times `factor`; None if there is no number."""
    try:
        return round(float(text) * factor, 3) if text else None
    except ValueError:
        return None


def _device_tree(root: Path, name: str) -> str | None:
    """Return a property of the device tree, which describes the hardware of an ARM board."""
    # /proc/device-tree is not used: it is an absolute link to this folder and leads out of a replayed root.
    return _line(root / "sys/firmware/devicetree/base" / name)


def _cpuinfo_value(cpuinfo: str, key: str) -> str | None:
    """Return the first value of a key in the text of /proc/cpuinfo."""
    match = re.search(rf"^{re.escape(key)}\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return match.group(1).strip() if match else None


def _cpu(cpuinfo: str) -> tuple[str | None, str | None]:
    """Return the name of the CPU core or processor, and the part number of an ARM core such as "0xd03"."""
    implementer, part = _cpuinfo_value(cpuinfo, "CPU implementer"), _cpuinfo_value(cpuinfo, "CPU part")
    if implementer is None or part is None:
        return _cpuinfo_value(cpuinfo, "model name"), None
    try:
        # The table has cores of ARM only; a part number of another implementer means another core.
        known = _ARM_PARTS.get(int(part, 16)) if int(implementer, 16) == _ARM else None
    except ValueError:
        known = None
    return known or _cpuinfo_value(cpuinfo, "model name"), part


def _memory_mib(root: Path, key: str) -> int | None:
    """Return the value of a line of the machine's /proc/meminfo."""
    return memory_mib(_read(root / "proc/meminfo") or "", key)


def _os_release(root: Path) -> str | None:
    """Return name and version of the system: the value of the line PRETTY_NAME="..."."""
    match = re.search(r'^PRETTY_NAME=["\']?([^"\'\n]*)', _read(root / "etc/os-release") or "", re.MULTILINE)
    return match.group(1) or None if match else None


def _clock(
    root: Path, cpufreq: Path, run: RunTool
) -> tuple[float | None, Literal["firmware", "cpufreq", "cpuinfo"] | None]:
    """Return the clock in MHz and its source: measured by the firmware, else as the kernel states it."""
    measured = re.search(r"^frequency\(\d+\)=(\d+)$", run(["vcgencmd", "measure_clock", "arm"]) or "", re.MULTILINE)
    if measured and int(measured.group(1)) > 0:
        return _scaled(measured.group(1), 1e-6), "firmware"  # from Hz
    requested_mhz = _scaled(_line(cpufreq / "scaling_cur_freq"), 1e-3)  # from kHz
    if requested_mhz is not None:
        return requested_mhz, "cpufreq"
    cpuinfo_mhz = _scaled(_cpuinfo_value(_read(root / "proc/cpuinfo") or "", "cpu MHz"), factor=1)
    return cpuinfo_mhz, None if cpuinfo_mhz is None else "cpuinfo"


def _temperature_c(root: Path) -> float | None:
    """Return the temperature of the processor's first sensor; None without a sensor.

    The kernel's files have it in 1/1000 °C.
    """
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        if _line(zone / "type") in _CPU_ZONES:
            return _scaled(_line(zone / "temp"), 1e-3)
    # Machines without such a zone, such as PCs with a processor of AMD.
    for sensor in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if _line(sensor / "name") in _CPU_SENSORS:
            return _scaled(_line(sensor / "temp1_input"), 1e-3)
    return None


def _throttling(root: Path, run: RunTool) -> Throttling | None:
    """Return the throttle flags from the firmware tool, else from sysfs, else the under-voltage alarm."""
    # `Throttling` is true also with no flag set: only None goes on to the next source.
    return (
        parse_throttled(run(["vcgencmd", "get_throttled"]))
        or parse_throttled(_line(root / "sys/devices/platform/soc/soc:firmware/get_throttled"))
        or _under_voltage(root)
    )


def _under_voltage(root: Path) -> Throttling | None:
    """Return the under-voltage alarm as the throttle flag of bit 0; None if there is no such sensor.

    Debian's own kernel provides only this flag (drivers/hwmon/raspberrypi-hwmon.c).
    """
    for sensor in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if _line(sensor / "name") == "rpi_volt":
            alarm = _line(sensor / "in0_lcrit_alarm")
            return Throttling(int(alarm)) if alarm in ("0", "1") else None
    return None


def _virtualization(root: Path, architecture: str, cpuinfo: str) -> Virtualization | None:
    """Return whether the processor is emulated or virtual; None if this cannot be detected.

    `architecture` is that of the running Python. It differs from the kernel's if qemu-user translates the programs.
    """
    kernel_family = _family(_line(root / "proc/sys/kernel/arch"))
    own_family = _family(architecture)
    # qemu-user runs the programs of one architecture on the kernel of another one.
    if _is_user_emulator(root) or (kernel_family and own_family and kernel_family != own_family):
        return "emulator"
    is_x86 = "vendor_id" in cpuinfo  # /proc/cpuinfo of an ARM kernel has "CPU implementer" instead
    if is_x86 and own_family == "arm":  # qemu-user, on a kernel without proc/sys/kernel/arch
        return "emulator"
    if is_x86 and "QEMU TCG" in cpuinfo:  # the processor of a qemu-system that translates instructions
        return "emulator"
    if is_x86:
        return "virtual machine" if re.search(r"^flags\s*:.*\bhypervisor\b", cpuinfo, re.MULTILINE) else "none"
    # The device tree and the firmware device of qemu-system's machine "virt".
    if _device_tree(root, "model") == "linux,dummy-virt" or (root / "sys/firmware/qemu_fw_cfg").exists():
        return "virtual machine"
    # An emulated Raspberry Pi has the device tree of a real one, but no firmware, which adds this parameter.
    booted_by_firmware = "vc_mem.mem_base=" in (_read(root / "proc/cmdline") or "")
    return "none" if booted_by_firmware and own_family == "arm" else None


def _is_user_emulator(root: Path) -> bool:
    """Return whether qemu-user runs this process."""
    # qemu-user fakes /proc/self/exe, but not this second name of the same file.
    try:
        return (root / "proc/thread-self/exe").readlink().name.startswith("qemu-")
    except OSError:
        return False


def _family(architecture: str | None) -> str | None:
    """Return "arm" or "x86" for the output of `uname -m`; another architecture is returned as it is."""
    if architecture is None:
        return None
    if architecture.startswith(("arm", "aarch64")):
        return "arm"
    return "x86" if re.fullmatch(r"x86_64|i[3-6]86", architecture) else architecture
