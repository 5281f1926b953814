"""Behaviour of all commands: help in sections, one line per error, unusable streams and protected files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from edgekit.cli import SECTIONS, cli, commands
from edgekit.errors import EXIT_INTERRUPTED
from edgekit.install_hint import install_command
from edgekit.model_store import asset

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


def test_a_name_that_no_file_can_have_is_a_wrong_value(edgekit: Run) -> None:
    code, _, err = edgekit("inspect", "x" * 300)
    assert code == 2
    assert err == f"edgekit: error: '{'x' * 300}': File name too long: use a shorter name\n"


@pytest.mark.parametrize("words", [("~/m.onnx",), ("m.onnx", "--output=~/o.onnx"), ("m.onnx", "-o~/o.onnx")])
def test_a_home_folder_that_the_shell_has_not_replaced_is_refused(edgekit: Run, words: tuple[str, ...]) -> None:
    code, _, err = edgekit("export", *words)
    assert (code, err.count("\n")) == (2, 1)
    assert f"'{words[-1]}': the shell has not replaced '~'" in err
    assert "(see 'edgekit --help')" in err


@pytest.mark.parametrize(
    "words", [["--note=of=~/lab"], ["--ssh-option=IdentityFile=~/key"], ["--ssh-option=-i", "--ssh-option=~/key"]]
)
def test_a_home_folder_in_other_text_is_accepted(edgekit: Run, words: list[str]) -> None:
    assert "model 'absent.onnx' does not exist" in edgekit("bench", "absent.onnx", *words, "--host", "h")[2]


def test_debug_is_accepted_before_the_command_too(edgekit: Run) -> None:
    code, _, err = edgekit("--debug", "inspect", "absent.onnx")
    assert (code, "Traceback" in err, "model 'absent.onnx' does not exist" in err) == (2, True, True)
    assert "No such command 'xyz'" in edgekit("--debug", "xyz")[2]


def test_a_missing_library_is_reported_with_the_command_that_installs_it() -> None:
    code = (
        "import sys; sys.modules['onnxruntime'] = None; sys.argv[1:] = ['run', '--source', 'demo']\n"
        "from edgekit.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"this needs 'onnxruntime': {install_command('device')}" in done.stderr


@pytest.mark.parametrize("arguments", [["run", "--nope"], ["inspect", "absent.onnx"]])
def test_closed_and_full_streams_change_no_exit_code(arguments: list[str]) -> None:
    command = f"{sys.executable} -m edgekit.cli {' '.join(arguments)}"
    for redirection in (">&-", "2>&-", ">&- 2>&-", "2>/dev/full"):
        done = subprocess.run(["bash", "-c", f"{command} {redirection}"], capture_output=True, text=True, check=False)
        assert done.returncode == 2, redirection
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("target", ["/dev/full", ">(exec true)"])
@pytest.mark.parametrize("command", ["report benchmarks/results/vm-epyc-2.json", "inspect default"])
def test_a_table_that_stderr_does_not_take_loses_no_document(command: str, target: str) -> None:
    words = f"{sys.executable} -m edgekit.cli {command} --json 2> {target}"
    done = subprocess.run(["bash", "-c", words], stdout=subprocess.PIPE, cwd=Path(__file__).parents[3], check=True)
    assert json.loads(done.stdout)


def test_what_a_terminal_cannot_show_is_escaped(tiny_model: Path, tmp_path: Path) -> None:
    document = onnx.load(tiny_model)
    document.graph.node[0].name = "Größe…"
    onnx.save(document, tmp_path / "model.onnx")
    for variables in ({"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}):
        command = [sys.executable, "-m", "edgekit.cli", "profile", tmp_path / "model.onnx"]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | variables)
        assert done.returncode == 0, done.stderr
        assert "Gr\\xf6\\xdfe\\u2026" in done.stdout


@pytest.mark.parametrize("option", ["--jsonl", "--csv"])
@pytest.mark.parametrize("suffix", [".onnx", ".safetensors", ".png"])
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


def test_an_output_that_is_its_input_is_refused(edgekit: Run, tmp_path: Path) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(asset("fer2013.safetensors").read_bytes())
    code, _, err = edgekit("import", copy, "-o", copy)
    assert code == 2
    assert "is an input of this command" in err
    assert copy.read_bytes() == asset("fer2013.safetensors").read_bytes()


# Sends a second Ctrl-C while the first one is reported.
AGAIN = """
import os, signal
import click
from edgekit import cli
press = lambda *_, **__: os.kill(os.getpid(), signal.SIGINT)
echo = click.echo
click.echo = lambda *words, **options: (echo(*words, **options), press())
cli.cli.main = press
cli.main()
"""


def test_a_second_ctrl_c_does_not_change_the_exit_code() -> None:
    done = subprocess.run([sys.executable, "-c", AGAIN], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (EXIT_INTERRUPTED, "", "edgekit: interrupted\n")
