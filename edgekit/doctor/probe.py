"""Access of the checks to a machine: files below a root folder, system tools, and imports in a child process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess
from typing import Literal, TypeAlias

from edgekit.boards import Board, Conditions, Interpreter, call_tool, read_board, read_conditions
from edgekit.deployed import current_releases
from edgekit.downloads import default_cache_dir

Status: TypeAlias = Literal["ok", "warning", "fault", "unknown"]

_TIMEOUT_S = 20
_IMPORT_TIMEOUT_S = 120
_MAX_CHARACTERS = 100_000

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
class Environment:
    """The Python that runs edgekit, and the virtual environment to which it may belong."""

    interpreter: Interpreter = field(default_factory=Interpreter)
    in_venv: bool = field(default_factory=lambda: sys.prefix != sys.base_prefix)
    system_site_packages: bool = field(default_factory=lambda: _has_system_packages())
    prefix: str = field(default_factory=lambda: sys.prefix)
    base_prefix: str = field(default_factory=lambda: sys.base_prefix)

    def system_packages_cure(self) -> str:
        """Return the command after which this virtual environment can import the system's packages."""
        if self.base_prefix == "/usr":
            return f"sed -i '/^include-system/s/false/true/' {self.prefix}/pyvenv.cfg"
        return "/usr/bin/python3 -m venv --clear --system-site-packages ~/edgekit-env"


Tool: TypeAlias = Callable[[Sequence[str]], CompletedProcess[str] | None]
Import: TypeAlias = Callable[[str, Sequence[str]], CompletedProcess[str]]


def run_tool(arguments: Sequence[str]) -> CompletedProcess[str] | None:
    """Return the result of a tool; None if it is missing or times out."""
    return call_tool(arguments, _TIMEOUT_S)


def import_in_child(module: str, distributions: Sequence[str]) -> CompletedProcess[str]:
    """Import a module in a new Python process and return its result.

    The result's `stdout` has one line `name version` for each of `distributions` that is installed.
    """
    command = [sys.executable, "-P", "-c", _IMPORT_CODE, module, *distributions]
    slow = f"importing {module} took longer than {_IMPORT_TIMEOUT_S} s"
    done = call_tool(command, _IMPORT_TIMEOUT_S)
    # None: the time was over, because this Python is not missing.
    return done or CompletedProcess(command, returncode=1, stdout="", stderr=slow)


@dataclass
class Probe:
    """Access to one machine."""

    root: Path = Path("/")
    tool: Tool = run_tool
    import_module: Import = import_in_child
    environment: Environment = field(default_factory=Environment)
    cache_dir: Callable[[], Path] = default_cache_dir
    releases: Callable[[], Mapping[str, Path]] = current_releases
    home: Callable[[], Path] = Path.home
    _board: Board | None = None
    _conditions: Conditions | None = None

    def read(self, name: str) -> str | None:
        """Return the text of a file below the root; None if it cannot be read."""
        try:
            with (self.root / name).open(errors="replace") as stream:
                return stream.read(_MAX_CHARACTERS)
        except OSError:
            return None

    def line(self, name: str) -> str | None:
        """Return the text of a one-line file; None if it cannot be read or is empty."""
        return (self.read(name) or "").strip("\0\n ") or None

    def run(self, *arguments: str) -> CompletedProcess[str] | None:
        """Return the result of a tool; None if it is missing or times out."""
        return self.tool(arguments)

    def imported(self, module: str, *distributions: str) -> CompletedProcess[str]:
        """Return the result of importing a module in a child process."""
        return self.import_module(module, distributions)

    def board(self) -> Board:
        """Return the description of the machine; read once."""
        if self._board is None:
            self._board = read_board(self.root, self.environment.interpreter)
        return self._board

    def conditions(self) -> Conditions:
        """Return the present state of the machine; read once."""
        if self._conditions is None:
            self._conditions = read_conditions(self.root, self._output)
        return self._conditions

    def _output(self, arguments: Sequence[str]) -> str | None:
        """Return the output of a tool; None if it is missing, fails or times out."""
        done = self.run(*arguments)
        return done.stdout if done is not None and done.returncode == 0 else None


def _has_system_packages() -> bool:
    """Return whether this Python can import the packages of the system."""
    if sys.prefix == sys.base_prefix:  # it is no virtual environment
        return True
    try:
        text = (Path(sys.prefix) / "pyvenv.cfg").read_text()
    except OSError:
        return False
    return any(line.replace(" ", "").lower() == "include-system-site-packages=true" for line in text.splitlines())
