"""The doctor on a board over SSH: its modules go along with the question and run from memory.

So it needs nothing there but a `python3`, and where that is missing or too old what the shell tells makes the findings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from edgekit.doctor.examination import parse_findings
from edgekit.doctor.probe import Finding
from edgekit.errors import HostError, InputError
from edgekit.remote.parallel import Listener
from edgekit.remote.prepare import Ready, run_ready, use_installed
from edgekit.remote.probe import MIN_PYTHON, Probe, probe
from edgekit.remote.program import program
from edgekit.remote.progress import PROGRESS_VARIABLE, read_progress
from edgekit.remote.ssh import Completed, Connection, shell
from edgekit.text import one_line, printable

_TIMEOUT_S = 900.0
_LIMIT_BYTES = 4 << 20
_MOST_SEEN = 2_000
_MOST_TITLE = 300
_MOST_NAMES = 20
_MOST_NAME = 256


@dataclass(frozen=True)
class Examined:
    """What the doctor found on a board.

    `python` is the Python whose libraries it looked at. `seen` holds the files and outputs it was found in, by title,
    and `names` what in them names the board and its user.
    """

    findings: list[Finding]
    python: str | None = None
    seen: dict[str, str] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)


def examine_host(
    connection: Connection, listener: Listener, *, capture: bool = False, install: bool = True
) -> Examined:
    """Return what the doctor finds on a board; nothing is written there.

    The libraries are those of the board's own edgekit, else of the environment that `edgekit bench --host` made, else
    of the system.

    Args:
        connection: The board.
        listener: Hears how far it is.
        capture: Bring back what the findings were found in.
        install: False: ask the edgekit that the board has of its own, not the doctor of this one.

    Raises:
        HostError: The board cannot be examined.
    """
    host = connection.host
    board = probe(connection)
    if not install:
        ready = use_installed(board, host.label)
        return Examined(_findings(_ask(connection, listener, ready, ["doctor", "--json"]), None, host.label))
    if board.python is None or board.python.version < MIN_PYTHON:
        return Examined(shell_findings(board))
    own = board.commands[0].rpartition("/")[0] + "/python" if board.commands else ""
    ready = Ready(tuple(shell(_CHOOSE, own, board.root, board.python.path)), None)
    done = _ask(connection, listener, ready, program("doctor", {"capture": capture}))
    first, _, second = done.stdout.partition(b"\n")
    findings = _findings(done, first, host.label)
    return _captured(findings, second, host.label)


def shell_findings(board: Probe) -> list[Finding]:
    """Return what can be said of a board without a Python that runs the doctor, in the doctor's words."""
    memory = f", {board.memory_mib} MiB" if board.memory_mib else ""
    bits = board.system_bits
    system = f"{board.system or 'unknown system'}, {bits or '?'} bit"
    findings = [Finding("board", "ok", f"{board.model or 'unknown board'}, {board.machine}{memory}")]
    if bits == 32:
        cure = "install the 64-bit Raspberry Pi OS"
        findings.append(Finding("system", "fault", f"{system}: onnxruntime has no 32-bit packages", cure))
    else:
        findings.append(Finding("system", "ok", system))
    if board.python is None:
        findings.append(Finding("python", "fault", "no python3 that answers", "sudo apt install python3"))
    else:
        version = "{}.{}".format(*board.python.version)
        cure = "take Raspberry Pi OS Bookworm or later"
        findings.append(Finding("python", "fault", f"{version}: older than {'{}.{}'.format(*MIN_PYTHON)}", cure))
    return [*findings, Finding("all else", "unknown", "the doctor needs that Python to look")]


def _ask(connection: Connection, listener: Listener, ready: Ready, arguments: list[str]) -> Completed:
    return run_ready(
        connection,
        ready,
        arguments,
        limit_bytes=_LIMIT_BYTES,
        timeout_s=_TIMEOUT_S,
        on_stderr_line=partial(_hear, connection, listener),
        environment=[f"{PROGRESS_VARIABLE}=1"],
    )


def _hear(connection: Connection, listener: Listener, line: str) -> None:
    told = read_progress(line)
    if told is not None:
        listener.progress(connection.host, told.what, told.done, told.total)


def _findings(done: Completed, content: bytes | None, label: str) -> list[Finding]:
    try:
        findings = parse_findings(done.stdout if content is None else content, "it")
    except InputError as error:
        raise HostError(f"{label}: {_reason(done) or error}") from error
    if not findings:
        raise HostError(f"{label}: the doctor there found nothing to say")
    return findings


def _reason(done: Completed) -> str:
    # Progress is no complaint.
    if done.returncode == 0 or read_progress(done.complaint) is not None:
        return ""
    return f"the doctor there ended with {done.returncode}" + (f": {done.complaint}" if done.complaint else "")


def _captured(findings: list[Finding], content: bytes, label: str) -> Examined:
    try:
        told: Mapping[str, Any] = json.loads(content)
        python, seen, names = str(told["python"]), dict(told.get("seen", {})), list(told.get("names", []))
        return Examined(
            findings,
            one_line(python)[:_MOST_TITLE],
            {one_line(title)[:_MOST_TITLE]: _harmless(str(text)) for title, text in list(seen.items())[:_MOST_SEEN]},
            [str(name)[:_MOST_NAME] for name in names[:_MOST_NAMES] if len(str(name)) > 2],
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise HostError(f"{label}: it does not tell what its findings were found in") from error


def _harmless(text: str) -> str:
    return "\t".join(printable(part) for part in text.replace("\0", "\\0").split("\t"))


# $1: the Python beside the board's own edgekit, or nothing; $2: edgekit's folder in the cache; $3: the system's Python.
_CHOOSE = """
python=$1
if ! [ -x "$python" ]; then
    newest=$(ls -t "$2"/envs/*/.ready 2>/dev/null | head -n 1)
    python=${newest%/.ready}/bin/python
fi
if [ -z "$python" ] || ! [ -x "$python" ] || [ "$python" = /bin/python ]; then python=$3; fi
shift 3
exec "$python" "$@"
"""
