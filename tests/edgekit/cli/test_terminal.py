"""Text output of the commands in a terminal of 80 columns."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

COLUMNS = 80
RESULTS = Path(__file__).parents[3] / "benchmarks" / "results"
BOARD = RESULTS / "vm-epyc-2.json"


@pytest.mark.parametrize(
    "command",
    [
        ("inspect", "distilled", "--layers"),
        ("report", BOARD),
        ("compare", BOARD, RESULTS / "emulated-a53-trixie.json", "--allow-different"),
        ("profile", "default", "--seconds", "0"),
    ],
    ids=lambda command: command[0],
)
def test_the_text_of_a_command_fits_into_80_columns(command: tuple[object, ...], tmp_path: Path) -> None:
    code, text = in_terminal(*command, cwd=tmp_path)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
    assert code == 0, text
    assert len(lines) > 10
    # A word that is longer, such as an address, is not divided, so that it can be copied.
    assert [line for line in lines if len(line.rstrip()) > COLUMNS and len(line.split()) > 1] == []


def in_terminal(*arguments: object, cwd: Path) -> tuple[int, str]:
    """Return the exit code and the stdout of an edgekit command in a terminal, with its colours."""
    primary, secondary = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "edgekit.cli", *map(str, arguments)]
    with subprocess.Popen(command, cwd=cwd, stdout=secondary, stderr=subprocess.DEVNULL, env=environment) as process:
        os.close(secondary)
        output = b""
        with suppress(OSError):  # the other side is closed
            while chunk := os.read(primary, 1 << 16):
                output += chunk
    os.close(primary)
    return process.returncode, output.decode().replace("\r\n", "\n")
