"""The generated pages of docs/reference/ are up to date, and a stale one is detected."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import DOCS, ROOT


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.reference_pages", "--check", str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_pages_are_up_to_date() -> None:
    done = check(DOCS / "reference")
    assert done.returncode == 0, done.stderr


def test_the_python_page_has_the_arguments_of_export_and_marks_keyword_only_arguments() -> None:
    page = (DOCS / "reference" / "python-api.md").read_text()
    export = page[page.index("### `edgekit.export`") : page.index("### `edgekit.quantize`")]
    assert "\n    output: str | Path,\n    *,\n    target: str = 'generic',\n" in export
    assert "- `target`: Preset of rewrites" in export


def test_the_defaults_of_settings_are_written_as_in_a_settings_file() -> None:
    page = (DOCS / "reference" / "settings.md").read_text()
    assert "| true or false | false |" in page
    assert "| False |" not in page


def test_the_descriptions_of_options_fit_the_width_of_the_site() -> None:
    lines = (DOCS / "reference" / "commands.md").read_text().splitlines()
    assert max(len(line) for line in lines if line.startswith(" " * 30)) <= 80


def test_a_stale_page_is_detected(tmp_path: Path) -> None:
    shutil.copytree(DOCS / "reference", tmp_path / "reference")
    page = tmp_path / "reference" / "settings.md"
    page.write_text(page.read_text().replace("rotate-size", "rotate-sise"))
    done = check(tmp_path / "reference")
    assert (done.returncode, done.stderr.count("is out of date")) == (1, 1)
    assert "settings.md" in done.stderr
