"""The Python code of README.md runs, its accuracies are those of the measured documents, and the pictures are small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks

README = (ROOT / "README.md").read_text()


def test_the_three_lines_of_python_run(tmp_path: Path) -> None:
    (code,) = blocks(README, "python")
    # Haar replaces YuNet, whose file would be downloaded.
    text = code.body.replace('source="demo"', 'source="demo", detector="haar"')
    done = subprocess.run([sys.executable, "-W", "error", "-c", text], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 10


@pytest.mark.parametrize("name", ["default", "fer2013", "distilled"])
def test_the_accuracies_are_the_measured_ones(name: str) -> None:
    measured = json.loads((ROOT / f"docs/models/{name}.json").read_text())
    shares = (
        measured["photographs"]["accuracy"],
        measured["ferplus"]["center-crop"]["accuracy"],
        measured["fer2013"]["center-crop"]["accuracy"],
    )
    assert f"`{name}`" in README
    assert " / ".join(f"{100 * share:.1f} %" for share in shares) in README


def test_the_pictures_are_small() -> None:
    sizes = {path.name: path.stat().st_size for path in (ROOT / "docs/pictures").iterdir()}
    assert max(sizes.values()) < 1_500_000
    assert sum(sizes.values()) < 4_000_000
