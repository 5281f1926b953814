"""The settings of trainings whose results are kept and used again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from edgekit.errors import InputError
from edgekit.files import write_atomic


def require_same(path: Path, settings: Mapping[str, object]) -> None:
    """Write settings to a file, or check that those in the file are the same.

    Raises:
        InputError: A setting has another value in the file.
    """
    before = json.loads(path.read_text()) if path.exists() else {}
    for name, value in settings.items():
        if before.get(name, value) != value:
            raise InputError(
                f"the results beside '{path}' have {name} {before[name]}, not {value}: use the same, or another folder"
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps({**before, **settings}, indent=2) + "\n")
