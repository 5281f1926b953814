"""Names of sent files: `bench --host` passes them in an environment variable, and the board's report uses them.

On a board the name of a sent file is its hash; the report must contain the name that the user gave on the workstation.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

_VARIABLE = "EDGEKIT_FILE_NAMES"


def names_setting(names: Mapping[str, str]) -> str:
    """Return the environment variable, as NAME=VALUE, with `names`: the user's file name for each path on the board."""
    return f"{_VARIABLE}={json.dumps(names)}"


def reported_name(path: str) -> str:
    """Return the name of a file for the report: the name that was passed for this path, else the path itself."""
    names: dict[str, str] = json.loads(os.environ.get(_VARIABLE) or "{}")
    return names.get(path, path)
