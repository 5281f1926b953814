"""What checks look at a machine through: files below a root, small tools, and Python modules imported in a child."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from edgekit.boards import Board, Conditions, Interpreter, read_board, read_conditions

Status: TypeAlias = Literal["ok", "warning", "fault", "unknown"]

_TIMEOUT_S = 20
_IMPORT_TIMEOUT_S = 120
_MOST_CHARACTERS = 100_000
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

# Versions first, flushed: a module that kills the interpreter still leaves them. Then the import.
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
    """What one check says: a line for people, and where something is wrong the command or step that mends it."""

    check: str
    status: Status
    text: str
    cure: str | None = None


@dataclass(frozen=True)
class ToolResult:
    """How a tool ended; a negative code is the signal that killed it."""

    code: int
    out: str
    err: str = ""


@dataclass(frozen=True)
class Environment:
    """The Python that runs edgekit, and the virtual environment it is in, if any."""

    interpreter: Interpreter = field(default_factory=Interpreter)
    in_venv: bool = field(default_factory=lambda: sys.prefix != sys.base_prefix)
    system_site_packages: bool = field(default_factory=lambda: _sees_system_packages())


Tool: TypeAlias = Callable[[Sequence[str]], ToolResult | None]
Import: TypeAlias = Callable[[str, Sequence[str]], ToolResult]


def run_tool(arguments: Sequence[str]) -> ToolResult | None:
    """Return how a tool ended, or None where it is missing or hangs."""
    tool = shutil.which(arguments[0])
    return None if tool is None else _run([tool, *arguments[1:]], _TIMEOUT_S)


def import_in_child(module: str, distributions: Sequence[str]) -> ToolResult:
    """Import a module in a new Python process; `out` has a line `name version` for each distribution that is there."""
    done = _run([sys.executable, "-c", _IMPORT_CODE, module, *distributions], _IMPORT_TIMEOUT_S)
    return done or ToolResult(1, "", f"importing {module} took longer than {_IMPORT_TIMEOUT_S} s")


@dataclass
class Probe:
    """One look at a machine; files and outputs seen are kept in `seen`, to be replayed or sent along with a report."""

    root: Path = Path("/")
    tool: Tool = run_tool
    import_module: Import = import_in_child
    environment: Environment = field(default_factory=Environment)
    seen: dict[str, str] = field(default_factory=dict)
    _board: Board | None = None
    _conditions: Conditions | None = None

    def read(self, name: str) -> str | None:
        """Return the text of a file below the root, None where there is none."""
        try:
            with (self.root / name).open(errors="replace") as stream:
                text = stream.read(_MOST_CHARACTERS)
        except OSError:
            return None
        self.seen[name] = text
        return text

    def line(self, name: str) -> str | None:
        """Return a file's one line, None where there is none or it is empty."""
        return (self.read(name) or "").strip("\0\n ") or None

    def run(self, *arguments: str) -> ToolResult | None:
        """Return how a tool ended, None where it is missing."""
        done = self.tool(arguments)
        if done is not None:
            self._keep("$ " + " ".join(arguments), done)
        return done

    def imported(self, module: str, *distributions: str) -> ToolResult:
        """Return how importing a module ended, in a process of its own."""
        done = self.import_module(module, distributions)
        self._keep(f"$ import {module}", done)
        return done

    def board(self) -> Board:
        """Return what the machine is; looked at once."""
        if self._board is None:
            for name in _BOARD_FILES:
                self.read(name)
            self._board = read_board(self.root, self.environment.interpreter)
        return self._board

    def conditions(self) -> Conditions:
        """Return the state it is in; looked at once."""
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
        ended = f" (exit {done.code})" if done.code else ""
        self.seen[title + ended] = done.out + done.err


def is_raspberry_pi(board: Board) -> bool:
    """Return whether a board is a Raspberry Pi."""
    return board.is_raspberry_pi


def _run(arguments: Sequence[str], timeout_s: float) -> ToolResult | None:
    try:
        done = subprocess.run(
            arguments, capture_output=True, stdin=subprocess.DEVNULL, text=True, errors="replace", timeout=timeout_s
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return ToolResult(done.returncode, done.stdout[:_MOST_CHARACTERS], done.stderr[:_MOST_CHARACTERS])


def _sees_system_packages() -> bool:
    if sys.prefix == sys.base_prefix:
        return True
    try:
        text = (Path(sys.prefix) / "pyvenv.cfg").read_text()
    except OSError:
        return False
    return any(line.replace(" ", "").lower() == "include-system-site-packages=true" for line in text.splitlines())
