"""An emulated board for the whole session, and what a user types to reach it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .board import VirtualPi
from .errors import UnavailableError
from .system import PYTHONS

TIMEOUT_S = 1500
EdgekitRun = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def suite() -> str:
    """The Debian that is emulated: EDGEKIT_PI_SUITE, trixie if unset."""
    name = os.environ.get("EDGEKIT_PI_SUITE") or "trixie"
    if name not in PYTHONS:
        pytest.skip(f"EDGEKIT_PI_SUITE={name}: none of {', '.join(PYTHONS)}")
    return name


@pytest.fixture(scope="session")
def pi(suite: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualPi]:
    """A board that runs as long as the session does."""
    board = VirtualPi(tmp_path_factory.mktemp("pi"), suite)
    try:
        board.start()
    except UnavailableError as error:
        pytest.skip(f"no emulated board: {error}")
    yield board
    board.stop()


@pytest.fixture
def fresh_pi(suite: str, tmp_path: Path) -> Iterator[VirtualPi]:
    """A board of the test's own, not booted yet."""
    board = VirtualPi(tmp_path / "fresh", suite)
    try:
        with board:
            pass
    except UnavailableError as error:
        pytest.skip(f"no emulated board: {error}")
    yield board
    board.stop()


@pytest.fixture(scope="session")
def edgekit() -> EdgekitRun:
    """Runs the command line as a user does."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "edgekit.cli", *map(str, arguments)]
        return subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S)

    return run
