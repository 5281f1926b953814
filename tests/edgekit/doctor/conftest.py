"""A fixture that replays boards from tests/fixtures/boards."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from edgekit.boards import Interpreter
from edgekit.doctor.probe import Environment, Probe
from edgekit.downloads import YUNET

FIXTURES = Path(__file__).parents[2] / "fixtures" / "boards"
Replay = Callable[..., Probe]


def interpreter(architecture: str, userland_bits: int = 64) -> str:
    """Return a section `interpreter`, for boards that are not arm64."""
    python = {"architecture": architecture, "userland_bits": userland_bits, "python": "3.9.2"}
    return json.dumps({**python, "in_venv": False, "system_site_packages": True})


def sections(name: str) -> dict[str, str]:
    """Return the sections of a fixture by title; they extend or replace those of the fixture in its line `# on:`."""
    text = (FIXTURES / f"{name}.txt").read_text()
    head, *parts = re.split(r"^==> (.+) <==\n", text, flags=re.MULTILINE)
    below = re.search(r"^# on: (\S+)", head, re.MULTILINE)
    found = sections(below.group(1)) if below else {}
    for title, body in zip(parts[::2], parts[1::2], strict=True):
        # The tool can have another exit code in the fixture of `# on:`.
        plain = re.sub(r" \(exit -?\d+\)$", "", title)
        found = {key: value for key, value in found.items() if re.sub(r" \(exit -?\d+\)$", "", key) != plain}
        found[title] = body
    return found


@pytest.fixture
def replay(tmp_path: Path) -> Replay:
    """Return a function that makes a probe of a board from its fixture; given sections replace those of the fixture."""
    return replayed_in(tmp_path)


def replayed_in(folder: Path) -> Replay:
    """Return the function of the fixture `replay`, with the board's files in `folder`."""

    def make(name: str, **changes: str) -> Probe:
        results: dict[str, CompletedProcess[str]] = {}
        environment = Environment(Interpreter("aarch64", 64, "3.13.5"), in_venv=True, system_site_packages=True)
        for title, body in {**sections(name), **changes}.items():
            tool = re.fullmatch(r"\$ (.+?)(?: \(exit (-?\d+)\))?", title)
            link = re.fullmatch(r"(\S+) -> (\S+)", title)
            if tool:
                code = int(tool.group(2) or 0)
                # A fixture does not state whether a failed tool wrote to stdout or stderr, so both contain the output.
                results[tool.group(1)] = CompletedProcess((), code, body, body if code else "")
            elif title == "interpreter":
                values = json.loads(body)
                seen = values.pop("in_venv"), values.pop("system_site_packages")
                environment = Environment(Interpreter(**values), *seen)
            else:
                path = folder / (link.group(1) if link else title)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.symlink_to(link.group(2)) if link else path.write_text(body.replace("\\0\n", "\0"))

        def run(arguments: Sequence[str]) -> CompletedProcess[str] | None:
            return results.get(" ".join(arguments))

        def import_module(module: str, distributions: Sequence[str]) -> CompletedProcess[str]:
            del distributions
            return results.get(f"import {module}", CompletedProcess((), 1, "", f"No module named '{module}'"))

        cache = Path("/home/pi/.cache/edgekit")
        detector = folder / cache.relative_to("/") / YUNET.name
        detector.parent.mkdir(parents=True, exist_ok=True)
        detector.touch()
        return Probe(folder, run, import_module, environment, lambda: cache, lambda: {}, lambda: Path("/home/pi"))

    return make
