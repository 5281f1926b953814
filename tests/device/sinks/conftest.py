"""Fixtures for the tests of all sinks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def killed_write() -> Callable[[Path], None]:
    """Return a function that leaves the temporary file of a process that was killed during a write."""
    code = (
        "import os, sys; from pathlib import Path; from edgekit.files import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as temporary: temporary.write_text('a part'); os._exit(0)"
    )

    def write(path: Path) -> None:
        subprocess.run([sys.executable, "-c", code, path], check=True)

    return write
