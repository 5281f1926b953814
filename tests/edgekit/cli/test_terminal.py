"""Text output of the commands in a terminal of 80 columns."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.terminal import COLUMNS, in_terminal, python_in_terminal

RESULTS = Path(__file__).parents[3] / "benchmarks" / "results"
BOARD = RESULTS / "vm-epyc-2.json"


@pytest.mark.parametrize(
    "command",
    [
        ("--help",),
        ("inspect", "default"),
        ("inspect", "distilled"),
        ("report", BOARD),
        ("compare", BOARD, RESULTS / "emulated-a53-trixie.json", "--allow-different"),
        ("profile", "default"),
        ("doctor",),
    ],
    ids=lambda command: command[0],
)
def test_the_text_of_a_command_fits_into_80_columns(command: tuple[object, ...], tmp_path: Path) -> None:
    code, text = in_terminal(*command, cwd=tmp_path)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
    assert code == 0 or command == ("doctor",), text
    assert len(lines) > 10
    # A word that is longer, such as an address, is not divided, so that it can be copied.
    assert [line for line in lines if len(line.rstrip()) > COLUMNS and len(line.split()) > 1] == []


def test_a_table_is_folded_to_80_columns_in_a_narrower_terminal_and_not_where_programs_read_it() -> None:
    out = "from edgekit.cli.output import Output, TextTable;"
    script = f"{out} Output(False, False).show(TextTable(('name', 'n'), [('word ' * 30, '1' * 9)], ('name',)))"
    _, text = python_in_terminal("-c", script, cwd=Path(), COLUMNS="40")
    piped = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert max(map(len, re.sub(r"\x1b\[\d*m", "", text).splitlines())) == COLUMNS
    assert piped.splitlines()[1].count("word") == 30


_MESSAGES = """
from edgekit.cli.output import Output
from edgekit.cli.output import updater, progress_bar
out = Output(as_json=False, quiet=False)
with progress_bar(out) as bars:
    updater(bars, "work")(1, 3)
    bars.refresh()
    out.say("a message")
    out.warn("a warning")
"""


def test_a_message_is_not_printed_on_the_line_of_a_progress_bar(tmp_path: Path) -> None:
    _, text = python_in_terminal("-c", _MESSAGES, cwd=tmp_path)
    erased_line = re.escape("\r\x1b[2K")
    assert re.search(f"work.*{erased_line}a message\n", text)
    assert re.search(f"work.*{erased_line}edgekit: warning: a warning\n", text)
