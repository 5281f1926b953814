"""Commands in a terminal of 80 columns."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

COLUMNS = 80


def in_terminal(*arguments: object, cwd: Path) -> tuple[int, str]:
    """Return the exit code and the stdout of an edgekit command in a terminal, with its colours."""
    return python_in_terminal("-m", "edgekit.cli", *arguments, cwd=cwd, stderr=subprocess.DEVNULL)


def python_in_terminal(
    *arguments: object, cwd: Path, stderr: int = subprocess.STDOUT, **variables: str
) -> tuple[int, str]:
    """Return the exit code and the output of Python with these arguments in a terminal, with its control sequences."""
    primary, secondary = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "TERM": "xterm-256color", **variables}
    command = [sys.executable, *map(str, arguments)]
    with subprocess.Popen(command, cwd=cwd, stdout=secondary, stderr=stderr, env=environment) as process:
        os.close(secondary)
        output = b""
        while chunk := _read(primary):
            output += chunk
    os.close(primary)
    return process.returncode, output.decode().replace("\r\n", "\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # the other side is closed
        return b""
