"""Missing working folder, too little memory and circular links: one error line and the right exit code."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.errors import EXIT_IO, EXIT_TEMPORARY, EXIT_USAGE

RUN = ("run", "--source", "demo", "--detector", "none", "--max-frames", "1")


def start(*words: object, before: str = "", cwd: Path | None = None, limit_bytes: int | None = None) -> tuple[int, str]:
    """Return exit code and stderr of a command in a separate process."""
    code = f"{before}\nfrom edgekit.cli import main; main()"
    limits = (lambda: resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))) if limit_bytes else None
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=limits,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("words", [RUN, ("bench", "default"), ("export", "default", "-o", "x.onnx"), ("doctor",)])
def test_a_working_folder_that_is_gone_is_one_line(tmp_path: Path, words: tuple[str, ...]) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    code, err = start(*words, before=f"import os; os.rmdir({str(folder)!r})", cwd=folder)
    line = (
        "edgekit: error: the working folder cannot be used (No such file or directory): change to another one with cd\n"
    )
    assert (code, err) == (EXIT_USAGE, line)


@pytest.mark.parametrize("words", [RUN, ("inspect", "default"), ("bench", "default", "--seconds", "0.1")])
@pytest.mark.parametrize("limit_mib", [300, 700])
def test_too_little_memory_to_reserve_is_one_line(words: tuple[str, ...], limit_mib: int) -> None:
    code, err = start(*words, limit_bytes=limit_mib << 20)
    assert code == EXIT_USAGE
    assert err.startswith(f"edgekit: error: this shell lets a program reserve {limit_mib} MiB of memory (ulimit -v)")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("library", ["numpy", "OpenCV"])
def test_too_little_memory_during_a_run_is_one_line_and_temporary(library: str) -> None:
    large = {
        "numpy": "np.empty(1 << 46, np.uint8)",
        "OpenCV": "cv2.resize(np.zeros((2, 2), np.uint8), (30_000, 30_000))",
    }
    before = f"""
import resource
import cv2
import numpy as np
from edgekit.device.engines import classifier
def to_input(*arguments):
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, resource.RLIM_INFINITY))
    try:
        {large[library]}
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
classifier.to_input = to_input
"""
    code, err = start(*RUN, before=before)
    assert (code, err.splitlines()[-1]) == (
        EXIT_TEMPORARY,
        "edgekit: error: out of memory: close other programs, or use smaller batches or frames",
    )


def test_the_least_memory_is_enough() -> None:
    code, err = start(*RUN, "--threads", "1", limit_bytes=800 << 20)
    assert (code, err) == (0, "")


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
