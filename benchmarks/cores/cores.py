"""The emulated cores (module): their caches, and a guest program's run under qemu with the counting plugin."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import click

from edgekit.files import write_atomic

HERE = Path(__file__).resolve().parent
LINE_BYTES = 64
# Folders of arm64 packages in the state: the engines, and what edgekit imports beside them.
ENGINES, IMPORTS = "packages", "imports"
EDGEKIT_IMPORTS = ("opencv-python-headless", "msgspec", "click", "rich", "platformdirs", "typing_extensions")


@dataclass(frozen=True)
class Core:
    """A core of a Raspberry Pi. `caches` are (KiB, ways) from L1I to the last level, sources in README.md."""

    cpu: str
    board: str
    clock_mhz: int
    caches: Mapping[str, tuple[int, int]]


CORES = {
    "a53": Core("cortex-a53", "Raspberry Pi 3B+, BCM2837B0", 1400, {"l1i": (32, 2), "l1d": (32, 4), "l2": (512, 16)}),
    "a72": Core("cortex-a72", "Raspberry Pi 4, BCM2711", 1500, {"l1i": (48, 3), "l1d": (32, 2), "l2": (1024, 16)}),
    "a76": Core(
        "cortex-a76",
        "Raspberry Pi 5, BCM2712",
        2400,
        {"l1i": (64, 4), "l1d": (64, 4), "l2": (512, 8), "l3": (2048, 16)},
    ),
}


def default_state() -> Path:
    """Return the folder of the emulator and the emulated system: $EDGEKIT_CORES, or a folder in the user's cache."""
    named = os.environ.get("EDGEKIT_CORES")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "edgekit-cores"


def prepare(state: Path) -> None:
    """Create what is missing in `state`: qemu, its plugin, the arm64 system, both engines and edgekit's imports.

    Raises:
        click.ClickException: A step fails; its log is in `state`.
    """
    try:
        subprocess.run([HERE / "prepare.sh", state], check=True)
        _install(state / ENGINES, ("onnxruntime", "numpy", "ncnn"), state)
        _install(state / IMPORTS, EDGEKIT_IMPORTS, state, "--no-deps")
    except subprocess.CalledProcessError as error:
        raise click.ClickException(f"preparing the emulated cores failed: {error}: see {state}/*.log") from error


def _install(target: Path, names: Sequence[str], state: Path, *more: str) -> None:
    """Install arm64 wheels of this environment's versions of some packages into a folder."""
    wanted = " ".join(f"{name}=={version(name)}" for name in names)
    stamp = target / ".installed"
    if not stamp.exists() or stamp.read_text() != wanted:
        platforms = [f"--platform=manylinux{tag}_aarch64" for tag in ("2014", "_2_17", "_2_24", "_2_27", "_2_28")]
        python = next((state / "root/usr/lib").glob("python3.*")).name.removeprefix("python")
        options = ["--quiet", "--upgrade", "--no-compile", "--only-binary=:all:", f"--python-version={python}"]
        command = [sys.executable, "-m", "pip", "install", *options, *platforms, *more, "--target", target]
        subprocess.run([*command, *wanted.split()], check=True)
        write_atomic(stamp, wanted)


def describe_processors(folder: Path, core: Core) -> None:
    """Write the files in /sys from which engines choose kernels and tile sizes: one core per processor of this machine.

    ONNX Runtime detects cores by them, ncnn sizes its tiles by the L2.
    """
    last = (os.cpu_count() or 1) - 1
    files = dict.fromkeys(("possible", "present", "online"), f"0-{last}") | {"kernel_max": str(last)}
    for number in range(last + 1):
        files[f"cpu{number}/cpufreq/cpuinfo_max_freq"] = f"{core.clock_mhz}000"
        files[f"cpu{number}/topology/physical_package_id"] = "0"
        files[f"cpu{number}/topology/core_siblings_list"] = f"0-{last}"
        for index, (name, (size_kib, ways)) in enumerate(core.caches.items()):
            cache = f"cpu{number}/cache/index{index}"
            files[f"{cache}/level"] = name[1]
            files[f"{cache}/type"] = {"i": "Instruction", "d": "Data"}.get(name[2:], "Unified")
            files[f"{cache}/size"] = f"{size_kib}K"
            files[f"{cache}/ways_of_associativity"] = str(ways)
            files[f"{cache}/coherency_line_size"] = str(LINE_BYTES)
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


def run_counted(
    state: Path, core: Core, program: Sequence[str | Path], source: Path, *options: str, **environment: str
) -> tuple[subprocess.CompletedProcess[str], list[dict[str, int]]]:
    """Run a Python program on the emulated core; return its process and the counts that the plugin wrote.

    `options` are arguments of the plugin beside the caches; the others are those of `run_emulated`.
    """
    caches = [f"{name}={size_kib}/{ways}" for name, (size_kib, ways) in core.caches.items()]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "counts"
        plugin = ",".join([str(state / "counter.so"), f"out={out}", *caches, *options])
        done = run_emulated(state, core, program, source, plugin, **environment)
        return done, [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def run_emulated(
    state: Path, core: Core, program: Sequence[str | Path], source: Path, plugin: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a Python program on the emulated core and return its process.

    `source` is the source tree of edgekit that the program may import, `environment` are variables of the program.
    """
    root = state / "root"
    describe_processors(root / "sys/devices/system/cpu", core)
    # Addresses and hashes determine which lines share a cache set: keep them constant.
    variables = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(state / "home"),
        "PYTHONHOME": str(root / "usr"),
        "PYTHONPATH": ":".join(map(str, (source, state / IMPORTS, state / ENGINES))),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        **environment,
    }
    emulator = [state / "qemu-aarch64", "-cpu", core.cpu, "-seed", "1", "-L", root]
    command = ["setarch", "--addr-no-randomize", *emulator, *(["-plugin", plugin] if plugin else [])]
    return subprocess.run([*command, root / "usr/bin/python3", *program], env=variables, capture_output=True, text=True)
