"""Passwords and tokens, read from a file or the environment; they never appear on the command line or in messages."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from edgekit.errors import InputError
from edgekit.files import require_file

_GROUP_AND_OTHERS = 0o077
_MAX_BYTES = 4096


def read_secret(path: Path | None, variable: str, what: str, notify: Callable[[str], None]) -> str | None:
    """Return the first line of the file `path`, else the environment variable `variable`, else None.

    `what` names the secret in messages. `notify` receives a warning if other users can read the file.

    Raises:
        InputError: The file cannot be read, or its first line or the variable is not text.
    """
    if path is None:
        value = os.environb.get(variable.encode())
        return _decoded(value, f"{variable} must be the {what} in one line of plain text") if value else None
    require_file(path, f"{what} file")
    with path.open("rb") as stream:
        first_line = stream.read(_MAX_BYTES).partition(b"\n")[0]
    secret = _decoded(first_line, f"{what} file '{path}': the first line must be the {what} in plain text")
    if path.stat().st_mode & _GROUP_AND_OTHERS:
        notify(f"other users can read the {what} in '{path}': run chmod 600 on it")
    return secret


def _decoded(data: bytes, message: str) -> str:
    try:
        secret = data.decode().strip()
    except UnicodeDecodeError:
        secret = ""
    if not secret or not secret.isprintable():
        raise InputError(message)
    return secret
