"""Shell completion: by click's protocol for each shell, and in the real shells."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.cli import SECTIONS
from edgekit.cli import run as run_command_line

Complete = Callable[[str], list[str]]
COMMANDS = [name for names in SECTIONS.values() for name in names]

BASH = """
eval "$(_EDGEKIT_COMPLETE=bash_source edgekit)"
IFS=' ' read -ra COMP_WORDS <<< "$1"
[ "${1: -1}" = ' ' ] && COMP_WORDS+=('')
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_edgekit_completion edgekit
printf '%s\\n' "${COMPREPLY[@]}"
"""
# Completion needs an interactive zsh: these functions replace those of zsh and print the completions.
ZSH = """
compdef() { :; }
compadd() { print -l -- "${(@P)@[-1]}"; }
_describe() { print -l -- "${(@)${(@P)3}%%:*}"; }
eval "$(_EDGEKIT_COMPLETE=zsh_source edgekit)"
words=("${(@s: :)1}")
CURRENT=$#words
_edgekit_completion
"""
FISH = """
_EDGEKIT_COMPLETE=fish_source edgekit | source
complete --do-complete $argv[1]
"""


@pytest.fixture(params=["bash", "zsh", "fish"])
def by_protocol(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Complete:
    """Return a function that completes a command line through the same variables as the script of a shell."""

    def complete(line: str) -> list[str]:
        words = line.split(" ")
        monkeypatch.setenv("_EDGEKIT_COMPLETE", f"{request.param}_complete")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", words[-1] if request.param == "fish" else str(len(words) - 1))
        with pytest.raises(SystemExit) as ended:
            run_command_line([])
        assert ended.value.code == 0
        lines = capsys.readouterr().out.splitlines()
        if request.param == "zsh":
            return lines[1::3]
        return [line.split(",", 1)[1].split("\t")[0] for line in lines]

    return complete


@pytest.fixture(params=["bash", "zsh", "fish"])
def in_shell(request: pytest.FixtureRequest, tmp_path: Path) -> Complete:
    """Return a function that completes a command line in a real shell."""
    shell = shutil.which(request.param)
    if shell is None:
        pytest.skip(f"no {request.param} here: apt-get install {request.param}")
    program = tmp_path / "edgekit"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m edgekit.cli "$@"\n')
    program.chmod(0o755)
    command = {"bash": ["--norc", "-c", BASH, "bash"], "zsh": ["-fc", ZSH, "zsh"], "fish": ["-Nc", FISH]}[request.param]
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)}

    def complete(line: str) -> list[str]:
        done = subprocess.run([shell, *command, line], capture_output=True, text=True, env=environment)
        assert done.stderr == ""
        return [line.split("\t")[0] for line in done.stdout.splitlines()]

    return complete


def test_commands_are_completed_in_their_order(by_protocol: Complete) -> None:
    assert by_protocol("edgekit ") == COMMANDS
    assert by_protocol("edgekit re") == ["report", "releases"]
    assert by_protocol("edgekit service inst") == ["install"]


def test_options_are_completed(by_protocol: Complete) -> None:
    assert by_protocol("edgekit --ver") == ["--version"]
    assert by_protocol("edgekit run --detector") == ["--detector"]


def test_the_values_of_a_choice_are_completed(by_protocol: Complete) -> None:
    assert by_protocol("edgekit run --detector ") == ["yunet", "haar", "none"]
    assert by_protocol("edgekit run --source demo --detector ha") == ["haar"]
    assert by_protocol("edgekit run --model ~/my.onnx --jsonl=~/r.jsonl --detector ha") == ["haar"]


@pytest.mark.parametrize("line", ["edgekit inspect my", "edgekit run --model my", "edgekit data check my"])
def test_file_names_are_left_to_the_shell(line: str) -> None:
    words = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    command = [sys.executable, "-m", "edgekit.cli"]
    environment = {**os.environ, "_EDGEKIT_COMPLETE": "bash_complete", **words}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.stdout, done.stderr) == ("file,my\n", "")


def test_the_shells_show_the_same(in_shell: Complete) -> None:
    assert set(in_shell("edgekit re")) == {"report", "releases"}
    assert set(in_shell("edgekit run --detector ")) == {"yunet", "haar", "none"}
    assert set(in_shell("edgekit run --camera-")) == {"--camera-size", "--camera-fps"}


def test_completing_a_command_imports_no_command() -> None:
    environment = {**os.environ, "_EDGEKIT_COMPLETE": "bash_complete", "COMP_WORDS": "edgekit r", "COMP_CWORD": "1"}
    command = [sys.executable, "-X", "importtime", "-m", "edgekit.cli"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert "plain,run" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert imported.isdisjoint({"numpy", "rich", "msgspec", "cv2", "onnxruntime", "edgekit.cli.commands.run"})
