"""`edgekit doctor` on a board over SSH: the doctor's modules are sent with the command and run from memory.

The board needs only `python3`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgekit.doctor.libraries import NOT_INSTALLED
from edgekit.doctor.probe import Finding
from edgekit.remote.parallel import HostReporter
from edgekit.remote.prepare import check_python
from edgekit.remote.probe import probe
from edgekit.remote.program import run_program
from edgekit.remote.ssh import Connection, shell

# Checks of what `bench --host` and `deploy` send to a board.
_SENT = ("numpy", "onnxruntime", "opencv")
_TIMEOUT_S = 900.0


@dataclass(frozen=True)
class Examined:
    """Findings of the doctor on a board; `python` is the path of the Python whose libraries were examined."""

    findings: list[Finding]
    python: str


def examine_host(connection: Connection, reporter: HostReporter) -> Examined:
    """Return the doctor's findings on a board; nothing is written on the board.

    The libraries examined are those of a deployed release, else of the installed edgekit, else of the environment that
    `edgekit bench --host` made, else of the system. On a board without an installed edgekit, missing libraries are no
    faults: `bench` and `deploy` send their own.

    Raises:
        HostError: The board cannot be examined.
    """
    board = probe(connection)
    python = check_python(board, connection.host.label).path
    installed = board.commands[0] if board.commands else ""  # path of the installed edgekit
    # A script that looks for a Python in a deployed release, beside the installed edgekit and in the environment of
    # `bench`; if there is none, it takes the system's `python`.
    chooser = shell(_CHOOSE_PYTHON, installed, board.root, python)
    examined = run_program(connection, chooser, "doctor", {}, reporter, kind=Examined, timeout_s=_TIMEOUT_S)
    if not board.commands:
        return replace(examined, findings=[*map(_not_needed, examined.findings)])
    return examined


def _not_needed(finding: Finding) -> Finding:
    """Return a missing library or detector of a new board as a note instead of a fault."""
    if finding.check in _SENT and finding.text == NOT_INSTALLED:
        text = "not installed, and not needed: bench --host and deploy send their own"
        return Finding(finding.check, "unknown", text)
    if finding.check == "detector" and finding.status == "warning":
        text = "no file of YuNet; bench --host and deploy send the file of this machine, if it has one"
        return Finding(finding.check, "unknown", text)
    return finding


# $1: the installed edgekit, or nothing; $2: edgekit's folder in the cache; $3: the system's Python. pipx and uv install
# a link to the edgekit in their environment. An environment whose Python was upgraded cannot import click.
_CHOOSE_PYTHON = """
works() { [ -x "$1" ] && "$1" -B -P -c 'import click' 2>/dev/null; }
for python in "${XDG_DATA_HOME:-$HOME/.local/share}"/edgekit/deploy/*/current/env/bin/python; do
    works "$python" && break
    python=
done
if [ -z "$python" ] && [ -n "$1" ]; then
    python=$(dirname "$(readlink -f "$1")")/python
    [ -x "$python" ] || python=
fi
if [ -z "$python" ]; then
    newest=$(ls -td "$2"/envs/* 2>/dev/null | head -n 1)
    python=$newest/bin/python
    [ -n "$newest" ] && works "$python" || python=$3
fi
shift 3
exec "$python" "$@"
"""
