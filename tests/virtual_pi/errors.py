"""Why there is no emulated board."""

from __future__ import annotations


class UnavailableError(Exception):
    """It cannot be made here; the text says why."""
