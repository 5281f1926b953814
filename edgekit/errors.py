"""What edgekit raises for bad input and bad luck; each class knows the exit code the command line answers with."""

from __future__ import annotations

EXIT_OK = 0
EXIT_FAULT = 1
EXIT_USAGE = 2
EXIT_GATE = 3
EXIT_HOSTS = 4
EXIT_IO = 74
EXIT_SOURCE = 75
EXIT_INTERRUPTED = 130


class EdgekitError(Exception):
    """An error a user can act on: one line that names the thing, the value and the cure."""

    exit_code = EXIT_FAULT


class InputError(EdgekitError):
    """Bad input: a file, a value or a combination that cannot be used."""

    exit_code = EXIT_USAGE


class GateError(EdgekitError):
    """A check ran and refused its subject."""

    exit_code = EXIT_GATE


class StorageError(EdgekitError):
    """A disk is full, read-only or broken."""

    exit_code = EXIT_IO


class SourceError(EdgekitError):
    """A camera or another frame source is absent or was lost; trying again later may help."""

    exit_code = EXIT_SOURCE


class HostError(EdgekitError):
    """A board over SSH did not do its part: not reached, not prepared, or its work failed."""

    exit_code = EXIT_HOSTS
