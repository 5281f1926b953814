"""Boots an emulated board for one command: `python -m tests.virtual_pi COMMAND...`.

The options that reach the board, such as --host, are appended to the command. EDGEKIT_PI_SUITE selects the Debian
release, as in the tests. Example: `python -m tests.virtual_pi edgekit doctor`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from .board import VirtualPi
from .errors import UnavailableError


def main() -> int:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory(prefix="virtual-pi-") as folder:
        try:
            with VirtualPi(Path(folder), os.environ.get("EDGEKIT_PI_SUITE") or "trixie") as board:
                return subprocess.run([*sys.argv[1:], *board.arguments]).returncode
        except UnavailableError as error:
            sys.exit(f"no emulated board: {error}")


if __name__ == "__main__":
    sys.exit(main())
