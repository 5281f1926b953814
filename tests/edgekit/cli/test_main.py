"""Behaviour of all commands: help in sections, one line per error, unusable streams and protected files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from edgekit.cli import SECTIONS, cli, commands

Run = Callable[..., tuple[int, str, str]]


def test_the_help_lists_every_command_once_below_the_title_of_its_section(edgekit: Run) -> None:
    code, out, _ = edgekit("--help")
    sections = re.findall(r"^(Train|Export|Run|Measure|Boards):\n((?:  \S.*\n?)+)", out, re.MULTILINE)
    listed = {title: tuple(line.split()[0] for line in rows.splitlines()) for title, rows in sections}
    assert (code, listed) == (0, SECTIONS)
    found = [cli.get_command(None, name) for names in SECTIONS.values() for name in names]  # type: ignore[arg-type]
    used = {command.callback.__module__.rpartition(".")[2] for command in found if command and command.callback}
    assert [command.name for command in found if command] == [name for names in SECTIONS.values() for name in names]
    assert used | {"job"} == {path.stem for path in Path(commands.__file__).parent.glob("[a-z]*.py")}


def test_a_usage_error_is_one_line_that_names_the_help(edgekit: Run) -> None:
    code, _, err = edgekit("run", "--nope")
    assert (code, err.count("\n")) == (2, 1)
    assert "--nope" in err
    assert "edgekit run --help" in err


def test_a_home_folder_that_the_shell_has_not_replaced_is_refused(edgekit: Run) -> None:
    code, _, err = edgekit("export", "m.onnx", "--output=~/o.onnx")
    assert (code, err.count("\n")) == (2, 1)
    assert "'--output=~/o.onnx': the shell has not replaced '~'" in err


def test_debug_is_accepted_before_the_command_too(edgekit: Run) -> None:
    code, _, err = edgekit("--debug", "inspect", "absent.onnx")
    assert (code, "Traceback" in err, "model 'absent.onnx' does not exist" in err) == (2, True, True)
    assert "No such command 'xyz'" in edgekit("--debug", "xyz")[2]


def test_closed_and_full_streams_change_no_exit_code() -> None:
    command = f"{sys.executable} -m edgekit.cli inspect absent.onnx"
    for redirection in (">&- 2>&-", "2>/dev/full"):
        done = subprocess.run(["bash", "-c", f"{command} {redirection}"], capture_output=True, text=True, check=False)
        assert done.returncode == 2, redirection
        assert "Traceback" not in done.stderr


def test_what_a_terminal_cannot_show_is_escaped(tiny_model: Path, tmp_path: Path) -> None:
    document = onnx.load(tiny_model)
    document.graph.node[0].name = "Größe…"
    onnx.save(document, tmp_path / "model.onnx")
    command = [sys.executable, "-m", "edgekit.cli", "profile", tmp_path / "model.onnx"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert "Gr\\xf6\\xdfe\\u2026" in done.stdout


@pytest.mark.parametrize(("option", "suffix"), [("--jsonl", ".onnx"), ("--csv", ".png")])
def test_results_are_not_written_over_models_and_pictures(
    edgekit: Run, tiny_model: Path, tmp_path: Path, option: str, suffix: str
) -> None:
    target = tmp_path / f"precious{suffix}"
    target.write_bytes(b"precious")
    code, _, err = edgekit("run", "--model", tiny_model, "--source", "demo", "--detector", "none", option, target)
    assert code == 2
    assert "would be overwritten" in err
    assert target.read_bytes() == b"precious"


def test_a_bench_report_is_not_written_over_its_model(edgekit: Run, tiny_model: Path) -> None:
    before = tiny_model.read_bytes()
    code, _, _ = edgekit("bench", tiny_model, "--no-pipeline", "--seconds", "0.01", "-o", tiny_model)
    assert (code, tiny_model.read_bytes() == before) == (2, True)
