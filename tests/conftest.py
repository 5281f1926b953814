"""Fixtures every room uses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared data and reference vectors, or a skip that says how to name it."""
    folder = Path(os.environ.get("EDGEKIT_SHARED") or Path(__file__).parents[2] / "shared")
    if not folder.is_dir():
        pytest.skip(f"no shared data at '{folder}': set EDGEKIT_SHARED")
    return folder
