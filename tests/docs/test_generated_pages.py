"""The generated pages and the JSON Schema: what is on them, and that a stale schema is detected and written again."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tools import reference_pages

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all files, newly written."""
    root = tmp_path_factory.mktemp("generated")
    for name in (*reference_pages.PAGES, reference_pages.SCHEMA):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
    # In a process of its own, so that nothing that tests register is on a page.
    command = [sys.executable, "-m", "tools.reference_pages", str(root)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return root


def test_the_schema_is_up_to_date_and_a_stale_one_is_detected(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written / reference_pages.SCHEMA
    assert path.read_text() == (ROOT / reference_pages.SCHEMA).read_text()
    monkeypatch.setattr(sys, "argv", ["reference_pages", "--check", str(written)])
    assert reference_pages.main() == 0
    path.write_text(path.read_text().replace("boards", "outdated"))
    assert reference_pages.main() == 1


def test_the_python_page_has_the_arguments_of_export_and_marks_keyword_only_arguments(written: Path) -> None:
    page = (written / "docs/reference/python-api.md").read_text()
    export = page[page.index("### `edgekit.export`") : page.index("### `edgekit.quantize`")]
    assert "\n    output: str | Path,\n    *,\n" in export
    assert "- `target` (`--target`): " in page


def test_the_python_page_describes_each_class_of_options_that_an_argument_has(written: Path) -> None:
    page = (written / "docs/reference/python-api.md").read_text()
    classes = set(re.findall(r"^    \w+: (\w+Options)\b", page, re.MULTILINE))
    assert "ImportOptions" in classes
    assert {name for name in classes if not re.search(rf"^### `[\w.]+\.{name}`$", page, re.MULTILINE)} == set()
