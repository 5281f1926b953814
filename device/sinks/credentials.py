"""Passwords and tokens: from a file or the environment, never from the command line, and never into a message."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from edgekit.errors import InputError
from edgekit.files import require_file

_OTHERS = 0o077
_LONGEST_BYTES = 4096


def read_secret(path: Path | None, variable: str, what: str, notify: Callable[[str], None]) -> str | None:
    """Return the first line of `path`, else the environment's `variable`, else None.

    Raises:
        InputError: The file cannot be read or holds no line of text; `what` names its content in the message.
    """
    if path is None:
        return os.environ.get(variable) or None
    require_file(path, f"file of the {what}")
    with path.open("rb") as stream:
        data = stream.read(_LONGEST_BYTES)
    try:
        secret = data.decode().partition("\n")[0].strip()
    except UnicodeDecodeError:
        secret = ""
    if not secret.isprintable() or not secret:
        raise InputError(f"file of the {what} '{path}' must have it as its first line, in plain text")
    if path.stat().st_mode & _OTHERS:
        notify(f"others on this machine may read the {what} in '{path}': chmod 600 it")
    return secret
