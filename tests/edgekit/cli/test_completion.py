"""Shell completion in a real bash."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.cli import SECTIONS

Complete = Callable[[str], list[str]]

BASH = """
eval "$(_EDGEKIT_COMPLETE=bash_source edgekit)"
IFS=' ' read -ra COMP_WORDS <<< "$1"
[ "${1: -1}" = ' ' ] && COMP_WORDS+=('')
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_edgekit_completion edgekit
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def in_shell(tmp_path: Path) -> Complete:
    """Return a function that completes a command line in a real bash."""
    program = tmp_path / "edgekit"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m edgekit.cli "$@"\n')
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)}

    def complete(line: str) -> list[str]:
        command = ["bash", "--norc", "-c", BASH, "bash", line]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.stderr == ""
        return [line.split("\t")[0] for line in done.stdout.splitlines()]

    return complete


def test_commands_options_and_words_are_completed(in_shell: Complete) -> None:
    assert set(in_shell("edgekit ")) == {name for names in SECTIONS.values() for name in names}
    assert set(in_shell("edgekit re")) == {"report", "releases"}
    assert set(in_shell("edgekit service inst")) == {"install"}
    assert set(in_shell("edgekit run --detector ")) == {"yunet", "haar", "none"}
    assert set(in_shell("edgekit run --model ~/my.onnx --jsonl=~/r.jsonl --detector ha")) == {"haar"}
    assert set(in_shell("edgekit run --camera-")) == {"--camera-size", "--camera-fps"}


def test_completing_a_command_imports_no_command() -> None:
    environment = {**os.environ, "_EDGEKIT_COMPLETE": "bash_complete", "COMP_WORDS": "edgekit r", "COMP_CWORD": "1"}
    command = [sys.executable, "-X", "importtime", "-m", "edgekit.cli"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert "plain,run" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert imported.isdisjoint({"numpy", "rich", "msgspec", "cv2", "onnxruntime", "edgekit.cli.commands.run"})
