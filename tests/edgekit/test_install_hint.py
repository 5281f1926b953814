"""Messages name an install command that fits the installation, never the unrelated package edgekit."""

from __future__ import annotations

import ast
import configparser
import re
import sys
from pathlib import Path

import pytest

from edgekit import install_hint
from edgekit.install_hint import EXTRA_OF_MODULE, install_command, missing_module

# A command that installs the requirement `edgekit`, or this requirement with an extra or a version.
_FOREIGN = re.compile(
    r"\b(?:pip3?|pipx|uv tool|uv pip) (?:install|run)\b[^`#\n]*[ \t]['\"]?edgekit(?![\w./-])"
    r"|\buvx edgekit\b"
    r"|(?<![\w./~-])edgekit ?(?:\[[a-z]|[<>=!~]=)"
)


def test_several_extras_are_one_requirement() -> None:
    assert install_command("device", "ncnn") == "pip install 'edgekit-pi[device,ncnn]'"


@pytest.mark.parametrize(
    ("extras", "expected"),
    [
        (("mqtt",), "sudo apt install python3-paho-mqtt"),
        (("teach", "preview"), "sudo apt install python3-onnx python3-starlette python3-uvicorn"),
    ],
)
def test_debians_package_is_completed_by_apt(
    extras: tuple[str, ...], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install_hint, "__file__", "/usr/lib/python3/dist-packages/edgekit/install_hint.py")
    assert install_command(*extras) == expected
    assert install_command("export").endswith("~/edgekit-env/bin/pip install 'edgekit-pi[export]'")  # not in Debian


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("uv-receipt.toml", "uv pip install --python {environment} 'edgekit-pi[mqtt]'"),
        ("pipx_metadata.json", "pipx runpip edgekit-pi install 'edgekit-pi[mqtt]'"),
    ],
)
def test_the_environment_of_a_tool_is_completed_by_the_tool(
    file: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = tmp_path / "edgekit-pi"
    environment.mkdir()
    (environment / file).touch()
    monkeypatch.setattr(sys, "prefix", str(environment))
    assert install_command("mqtt") == expected.format(environment=environment)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("python3 -m pip install -U \\\n    'edgekit'", True),
        ("uvx edgekit run", True),
        ('dependencies = ["edgekit>=0.2"]', True),
        ("pip install 'edgekit-pi[device]'", False),
        ("~/edgekit-env/bin/pip install '.[device]'   # then run edgekit doctor", False),
    ],
)
def test_an_instruction_that_installs_the_other_project_is_found(text: str, expected: bool) -> None:
    assert bool(_foreign_instructions(text)) == expected


def test_no_file_names_the_other_project_as_a_requirement() -> None:
    root = Path(__file__).parents[2]
    folders = ("edgekit", "models", "export", "device", "docs", "examples", "tools", "benchmarks", "tests", ".github")
    files = [
        *(path for path in root.glob("*") if path.is_file()),
        root / ".ci/run",
        *(path for folder in folders for path in sorted((root / folder).rglob("*"))),
    ]
    suffixes = ("", ".cfg", ".html", ".js", ".md", ".py", ".sh", ".toml", ".yaml", ".yml")
    found = [
        f"{path.relative_to(root)}: {instruction}"
        for path in files
        if path.is_file() and path.suffix in suffixes and path != Path(__file__)
        for instruction in _foreign_instructions(path.read_text(errors="replace"))
    ]
    assert found == []


def _foreign_instructions(text: str) -> list[str]:
    """Return the parts of a text that would install the package `edgekit` of the index, which is another project."""
    return [match.group() for match in _FOREIGN.finditer(text.replace("\\\n", " "))]


def test_every_module_that_edgekit_imports_has_its_extra() -> None:
    root = Path(__file__).parents[2]
    setup = configparser.ConfigParser(delimiters="=", comment_prefixes="#", interpolation=None)
    setup.read(root / "setup.cfg")
    always = {line.partition(">")[0] for line in setup["options"]["install_requires"].split()}
    imported = set()
    for top_folder in ("edgekit", "models", "export", "device"):
        for path in sorted((root / top_folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and node.level == 0:
                    imported.add(str(node.module).partition(".")[0])
                elif isinstance(node, ast.Import):
                    imported |= {alias.name.partition(".")[0] for alias in node.names}
    # picamera2 and libcamera are system packages; markupsafe comes with jinja2; pip and _typeshed need no extra.
    others = {"edgekit", "picamera2", "libcamera", "markupsafe", "pip", "_typeshed"}
    assert imported - sys.stdlib_module_names - always - others - set(EXTRA_OF_MODULE) == set()
    assert set(EXTRA_OF_MODULE.values()) <= set(setup["options.extras_require"])


def test_a_module_of_no_extra_has_no_command() -> None:
    assert missing_module(ModuleNotFoundError("No module named 'edgekit.gone'", name="edgekit.gone")) is None
