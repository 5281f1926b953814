"""The generated pages and the JSON Schema are up to date, and stale ones are detected and written again."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, ROOT
from tools import reference_pages


def test_the_pages_are_up_to_date() -> None:
    # In a process of its own, so that nothing that tests register is on a page.
    command = [sys.executable, "-m", "tools.reference_pages", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_python_page_has_the_arguments_of_export_and_marks_keyword_only_arguments() -> None:
    page = (DOCS / "reference" / "python-api.md").read_text()
    export = page[page.index("### `edgekit.export`") : page.index("### `edgekit.quantize`")]
    assert "\n    output: str | Path,\n    *,\n" in export
    assert "- `target` (`--target`): " in page


def test_the_python_page_describes_each_class_of_options_that_an_argument_has() -> None:
    page = (DOCS / "reference" / "python-api.md").read_text()
    classes = set(re.findall(r"^    \w+: (\w+Options)\b", page, re.MULTILINE))
    assert "LoopOptions" in classes
    assert {name for name in classes if not re.search(rf"^### `[\w.]+\.{name}`$", page, re.MULTILINE)} == set()


def test_the_defaults_of_settings_are_written_as_in_a_settings_file() -> None:
    page = (DOCS / "reference" / "settings.md").read_text()
    assert "| true or false | false |" in page
    assert "| False |" not in page


def test_the_descriptions_of_options_fit_the_width_of_the_site() -> None:
    lines = (DOCS / "reference" / "commands.md").read_text().splitlines()
    assert max(len(line) for line in lines if line.startswith(" " * 30)) <= 80


def test_stale_pages_are_detected_and_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = {"docs/reference/settings.md": "rotate-files", "edgekit/report/bench.schema.json": "boards"}
    good = "docs/reference/exit-codes.md"
    monkeypatch.setattr(reference_pages, "PAGES", {name: reference_pages.PAGES[name] for name in (*stale, good)})
    for name in reference_pages.PAGES:
        page = tmp_path / name
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text((ROOT / name).read_text().replace(stale.get(name, "no such word"), "outdated"))
    monkeypatch.setattr(sys, "argv", ["reference_pages", "--check", str(tmp_path)])
    assert reference_pages.main() == 1
    assert sorted(line.split()[0] for line in capsys.readouterr().err.splitlines()) == sorted(stale)
    monkeypatch.setattr(sys, "argv", ["reference_pages", str(tmp_path)])
    assert reference_pages.main() == 0
    for name in reference_pages.PAGES:
        assert (tmp_path / name).read_text() == (ROOT / name).read_text()
