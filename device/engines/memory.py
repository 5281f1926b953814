"""The error of an inference that lacks memory, the same for all engines."""

from __future__ import annotations

from edgekit.errors import TemporaryError
from edgekit.text import one_line


def memory_error(what: str, reason: str) -> TemporaryError:
    """Return the error of an inference, or another work named `what`, that probably fails for lack of memory."""
    return TemporaryError(f"{what} fails: is the memory full? ({one_line(reason)})")
