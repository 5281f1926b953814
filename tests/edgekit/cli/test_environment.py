"""Too little memory and circular links: one error line and the right exit code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.errors import EXIT_IO, EXIT_TEMPORARY, EXIT_USAGE

RUN = ("run", "--source", "demo", "--detector", "none", "--max-frames", "1")


def test_too_little_memory_during_a_run_is_one_line_and_temporary() -> None:
    before = """
import numpy as np
from edgekit.device.engines import classifier
classifier.to_input = lambda *_: np.empty(1 << 46, np.uint8)
"""
    code = f"{before}\nfrom edgekit.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *RUN], capture_output=True, text=True)
    assert done.returncode == EXIT_TEMPORARY
    assert "error: out of memory" in done.stderr.splitlines()[-1]


@pytest.fixture
def circle(tmp_path: Path) -> Path:
    """A symbolic link to itself."""
    path = tmp_path / "circle"
    path.symlink_to(path)
    return path


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("run", "--source", "{}", "--max-frames", "1"), EXIT_USAGE),
        ((*RUN, "--jsonl", "{}"), EXIT_IO),
        ((*RUN, "--csv", "{}/x.csv"), EXIT_IO),
        ((*RUN, "--save", "{}/x.mp4"), EXIT_IO),
        (("run", "--config", "{}"), EXIT_USAGE),
        (("inspect", "{}"), EXIT_USAGE),
        (("data", "check", "{}"), EXIT_USAGE),
        (("report", "{}"), EXIT_USAGE),
        (("service", "install", "--user", "--folder", "{}", "--", "--source", "demo"), EXIT_USAGE),
    ],
)
def test_links_in_a_circle_are_one_line(edgekit, circle: Path, words: tuple[str, ...], expected: int) -> None:
    code, _, err = edgekit(*(word.format(circle) for word in words))
    assert code == expected, err
    assert len([line for line in err.splitlines() if "error:" in line]) == 1
    assert "internal" not in err
    assert circle.name in err
