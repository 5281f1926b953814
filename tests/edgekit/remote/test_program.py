"""Programs for a board's bare Python: they are complete, use the standard library, and print errors as one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

from edgekit.remote.board import loader
from edgekit.remote.program import needed, program

PROGRAMS = ("deploy", "doctor", "setup")
# Linux limits one argument to 128 KiB, and sshd passes the whole command to a shell as one argument.
MOST_CHARACTERS = 100_000


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(
        "edgekit", include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None
    )


@pytest.mark.parametrize("name", PROGRAMS)
def test_all_imports_are_sent_or_standard_library(graph: grimp.ImportGraph, name: str) -> None:
    module = f"edgekit.remote.board.{name}"
    wanted = {module, "edgekit.errors", *graph.find_upstream_modules(module)}
    wanted |= {parent for child in wanted for parent in parents(child)}
    own = {each for each in wanted if each.split(".")[0] == "edgekit"}
    assert own == set(needed(module))
    assert wanted - own <= sys.stdlib_module_names
    assert graph.find_modules_directly_imported_by(loader.__name__) - own <= sys.stdlib_module_names


def parents(module: str) -> list[str]:
    words = module.split(".")
    return [".".join(words[:count]) for count in range(1, len(words))]


@pytest.mark.parametrize("name", PROGRAMS)
def test_it_fits_into_a_command_line(name: str) -> None:
    assert sum(map(len, program(name, {"files": "x" * 20_000}))) < MOST_CHARACTERS


def test_the_oldest_python_parses_it() -> None:
    import ast

    for name in PROGRAMS:
        for source in needed(f"edgekit.remote.board.{name}").values():
            ast.parse(source, feature_version=(3, 11))


def run(name: str, argument: dict[str, object]) -> subprocess.CompletedProcess[str]:
    # With -S, Python has no site-packages folder.
    return subprocess.run([sys.executable, "-S", *program(name, argument)], capture_output=True, text=True)


def test_an_error_on_the_board_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run("setup", {"root": str(tmp_path / "file/edgekit")})
    assert json.loads(done.stdout) == {"error": f"Not a directory: '{tmp_path}/file/edgekit'"}
    assert (done.returncode, done.stderr) == (1, "")
    assert json.loads(run("deploy", {}).stdout) == {"error": "KeyError: 'name'"}
