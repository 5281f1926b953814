"""The error for machines without emulated boards."""

from __future__ import annotations


class UnavailableError(Exception):
    """An emulated board is not possible on this machine; the message names the reason."""
