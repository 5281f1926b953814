"""The supervisor of one service: `python -m edgekit.device.service FOLDER`, as `edgekit service install` starts it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from edgekit.device.service.supervisor import Supervisor
from edgekit.errors import EXIT_USAGE, EdgekitError

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(EXIT_USAGE)
    os.chdir("/")  # a disk that a service was installed from can be taken out
    try:
        sys.exit(Supervisor(Path(sys.argv[1])).run())
    except EdgekitError as error:
        print(f"edgekit: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
