"""Exceptions and warnings of edgekit, and the exit codes of the command line; each class has its exit code."""

from __future__ import annotations

import sys
import warnings

EXIT_OK = 0
EXIT_FAULT = 1
EXIT_USAGE = 2
EXIT_GATE = 3
EXIT_HOSTS = 4
EXIT_IO = 74
EXIT_TEMPORARY = 75
EXIT_INTERRUPTED = 130

# Begins the line that a command prints before it ends with an error.
ERROR_PREFIX = "edgekit: error: "
# Begins a line of stderr that a board sends to the workstation: a message, or the progress of a step.
MESSAGE_PREFIX = "edgekit-job "


class EdgekitError(Exception):
    """Base class of errors that the user can correct. The message is one line: subject, value and solution."""

    exit_code = EXIT_FAULT


class InputError(EdgekitError):
    """A file, a value or a combination of values cannot be used."""

    exit_code = EXIT_USAGE


class GateError(EdgekitError):
    """A check was completed, but its result does not reach the required limit."""

    exit_code = EXIT_GATE


class StorageError(EdgekitError):
    """A file cannot be written: the disk is full, read-only or damaged."""

    exit_code = EXIT_IO


class TemporaryError(EdgekitError):
    """A camera, disk, network address or memory is missing, or another process has a lock; try again later."""

    exit_code = EXIT_TEMPORARY


class SourceError(TemporaryError):
    """A camera or another frame source is missing or was lost."""


class ConflictError(EdgekitError):
    """The state of a page has changed since the page read it, such as a crop that was labelled on another page."""


class HostError(EdgekitError):
    """A board could not be reached or prepared over SSH, or a command on it failed."""

    exit_code = EXIT_HOSTS


def warn(message: str) -> None:
    """Issue a Python warning that shows the line that called edgekit; the default of all `notify` arguments."""
    # Level 2 is the caller of this function; each frame of edgekit above it adds one.
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("edgekit."):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)
