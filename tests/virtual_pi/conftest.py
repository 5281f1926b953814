"""Emulated boards and the command line that uses them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .board import VirtualPi
from .errors import UnavailableError
from .system import PYTHONS, USER_ID

TIMEOUT_S = 1500
# The shortest benchmark: the tests check the steps, not the speed.
QUICK = ("--seconds", "0.01", "--processes", "1", "--threads", "1", "--cool-down", "0", "--allow-throttled")
CACHE = "home/pi/.cache/edgekit/board"
EdgekitRun = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def suite() -> str:
    """The emulated Debian: EDGEKIT_PI_SUITE, by default trixie."""
    name = os.environ.get("EDGEKIT_PI_SUITE") or "trixie"
    if name not in PYTHONS:
        pytest.skip(f"EDGEKIT_PI_SUITE={name}: none of {', '.join(PYTHONS)}")
    return name


@pytest.fixture(scope="session")
def pi(suite: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualPi]:
    """A board that runs for the whole session."""
    board = prepared(VirtualPi(tmp_path_factory.mktemp("pi"), suite))
    with board:
        yield board


@pytest.fixture
def fresh_pi(suite: str, tmp_path: Path) -> Iterator[VirtualPi]:
    """A board for one test, not booted."""
    board = prepared(VirtualPi(tmp_path / "fresh", suite))
    yield board
    board.stop()


def prepared(board: VirtualPi) -> VirtualPi:
    """Return the board, ready to boot, or skip the test."""
    try:
        board.prepare()
    except UnavailableError as error:
        pytest.skip(f"no emulated board: {error}")
    return board


@pytest.fixture(scope="session")
def edgekit() -> EdgekitRun:
    """Runs the command line."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "edgekit.cli", *map(str, arguments)]
        return subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S)

    return run


@dataclass(frozen=True)
class Benchmark:
    """A finished `edgekit bench --host`: the process, its report, and the model."""

    done: subprocess.CompletedProcess[str]
    report: Path
    model: Path


@pytest.fixture(scope="session")
def first_bench(
    pi: VirtualPi, edgekit: EdgekitRun, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Benchmark:
    """The first benchmark on a board without edgekit, with a pipeline over one image."""
    import cv2
    import numpy as np

    folder = tmp_path_factory.mktemp("first bench")
    # A name with characters that a shell would interpret.
    model, source = folder / "it's; $(touch planted) odd.onnx", folder / "one frame.png"
    shutil.copy(tiny_model, model)
    cv2.imwrite(str(source), np.zeros((48, 64, 3), np.uint8))
    report = folder / "report.json"
    arguments = [*QUICK, *pi.arguments, "--source", source, "--detector", "none", "--note", "fan=it's $(off)"]
    done = edgekit("bench", model, *arguments, "-o", report, "--html", report.with_suffix(".html"))
    if "cannot be downloaded" in done.stderr:
        pytest.skip(f"no wheels for the board: {done.stderr.strip()}")
    return Benchmark(done, report, model)


@pytest.fixture(scope="session")
def cache_copy(first_bench: Benchmark, pi: VirtualPi, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of edgekit's cache on the board after the first benchmark."""
    assert first_bench.done.returncode == 0, first_bench.done.stderr
    copy = tmp_path_factory.mktemp("cache") / "board"
    subprocess.run(["cp", "-a", pi.path(CACHE), copy], check=True)
    return copy


@pytest.fixture
def cached_environment(fresh_pi: VirtualPi, cache_copy: Path) -> None:
    """Copy the environment of the first benchmark to a fresh board, because unpacking it there takes minutes."""
    target = fresh_pi.path(CACHE)
    target.parent.mkdir(parents=True)
    for folder in (target.parent, target.parent.parent):
        os.chown(folder, USER_ID, USER_ID)
    subprocess.run(["cp", "-a", cache_copy, target], check=True)
