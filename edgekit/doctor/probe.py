"""Access of the checks to a machine: files below a root folder, system tools, and imports in a child process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from subprocess import CompletedProcess
from typing import Literal, TypeAlias

from edgekit.boards import Board, Conditions, Interpreter, call_tool, read_board, read_conditions
from edgekit.deployed import current_releases

Status: TypeAlias = Literal["ok", "warning", "fault", "unknown"]

_TIMEOUT_S = 20
_IMPORT_TIMEOUT_S = 120
_MAX_CHARACTERS = 100_000
_BOARD_FILES = (
    "proc/cpuinfo", "proc/meminfo", "etc/os-release", "proc/cmdline", "proc/sys/kernel/osrelease",
    "proc/sys/kernel/arch", "sys/firmware/devicetree/base/model",
)  # fmt: skip
_CONDITION_FILES = (
    "proc/loadavg", "sys/class/thermal/thermal_zone*/type", "sys/class/thermal/thermal_zone*/temp",
    "sys/class/hwmon/hwmon*/name", "sys/class/hwmon/hwmon*/temp1_input",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_*",
    "sys/devices/platform/soc/soc:firmware/get_throttled",
)  # fmt: skip

# The versions are flushed before the import, because the module may crash the interpreter.
_IMPORT_CODE = """
import importlib.metadata, sys
for name in sys.argv[2:]:
    try:
        print(name, importlib.metadata.version(name), flush=True)
    except importlib.metadata.PackageNotFoundError:
        pass
__import__(sys.argv[1])
print("imported")
"""


@dataclass(frozen=True)
class Finding:
    """Result of one check: one line of text, and for a fault the command or step that repairs it."""

    check: str
    status: Status
    text: str
    cure: str | None = None


@dataclass(frozen=True)
class ToolResult:
    """Exit code and output of a tool; a negative code is the signal that killed it."""

    code: int
    out: str
    err: str = ""


@dataclass(frozen=True)
class Environment:
    """The Python that runs edgekit, whether it belongs to a virtual environment, and other packages' engines."""

    interpreter: Interpreter = field(default_factory=Interpreter)
    in_venv: bool = field(default_factory=lambda: sys.prefix != sys.base_prefix)
    system_site_packages: bool = field(default_factory=lambda: _has_system_packages())
    engines: tuple[str, ...] = field(
        default_factory=lambda: tuple(point.name for point in entry_points(group="edgekit.engines"))
    )


Tool: TypeAlias = Callable[[Sequence[str]], ToolResult | None]
Import: TypeAlias = Callable[[str, Sequence[str]], ToolResult]


def run_tool(arguments: Sequence[str]) -> ToolResult | None:
    """Return the result of a tool; None if it is missing or times out."""
    return _result(call_tool(arguments, _TIMEOUT_S))


def import_in_child(module: str, distributions: Sequence[str]) -> ToolResult:
    """Import a module in a new Python process and return its result.

    The result's `out` has one line `name version` for each of `distributions` that is installed.
    """
    done = call_tool([sys.executable, "-P", "-c", _IMPORT_CODE, module, *distributions], _IMPORT_TIMEOUT_S)
    return _result(done) or ToolResult(1, "", f"importing {module} took longer than {_IMPORT_TIMEOUT_S} s")


def cache_dir() -> Path:
    """Return edgekit's folder of downloads, as `downloads.default_cache_dir`, which needs more than a bare Python."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "edgekit"


@dataclass
class Probe:
    """Access to one machine; files and outputs that were read are kept in `seen`, for reports and replays."""

    root: Path = Path("/")
    tool: Tool = run_tool
    import_module: Import = import_in_child
    environment: Environment = field(default_factory=Environment)
    cache_dir: Callable[[], Path] = cache_dir
    releases: Callable[[], Mapping[str, Path]] = current_releases
    home: Callable[[], Path] = Path.home
    seen: dict[str, str] = field(default_factory=dict)
    _board: Board | None = None
    _conditions: Conditions | None = None

    def read(self, name: str) -> str | None:
        """Return the text of a file below the root; None if it cannot be read."""
        try:
            with (self.root / name).open(errors="replace") as stream:
                text = stream.read(_MAX_CHARACTERS)
        except OSError:
            return None
        self.seen[name] = text
        return text

    def line(self, name: str) -> str | None:
        """Return the text of a one-line file; None if it cannot be read or is empty."""
        return (self.read(name) or "").strip("\0\n ") or None

    def run(self, *arguments: str) -> ToolResult | None:
        """Return the result of a tool; None if it is missing or times out."""
        done = self.tool(arguments)
        if done is not None:
            self._keep("$ " + " ".join(arguments), done)
        return done

    def imported(self, module: str, *distributions: str) -> ToolResult:
        """Return the result of importing a module in a child process."""
        done = self.import_module(module, distributions)
        self._keep(f"$ import {module}", done)
        return done

    def board(self) -> Board:
        """Return the description of the machine; read once."""
        if self._board is None:
            for name in _BOARD_FILES:
                self.read(name)
            self._board = read_board(self.root, self.environment.interpreter)
        return self._board

    def conditions(self) -> Conditions:
        """Return the present state of the machine; read once."""
        if self._conditions is None:
            for pattern in _CONDITION_FILES:
                for path in sorted(self.root.glob(pattern)):
                    self.read(str(path.relative_to(self.root)))
            self._conditions = read_conditions(self.root, self._output)
        return self._conditions

    def _output(self, arguments: Sequence[str]) -> str | None:
        done = self.run(*arguments)
        return done.out if done is not None and done.code == 0 else None

    def _keep(self, title: str, done: ToolResult) -> None:
        exit_code = f" (exit {done.code})" if done.code else ""
        self.seen[title + exit_code] = done.out + done.err


def _result(done: CompletedProcess[str] | None) -> ToolResult | None:
    if done is None:
        return None
    return ToolResult(done.returncode, done.stdout[:_MAX_CHARACTERS], done.stderr[:_MAX_CHARACTERS])


def _has_system_packages() -> bool:
    if sys.prefix == sys.base_prefix:
        return True
    try:
        text = (Path(sys.prefix) / "pyvenv.cfg").read_text()
    except OSError:
        return False
    return any(line.replace(" ", "").lower() == "include-system-site-packages=true" for line in text.splitlines())
