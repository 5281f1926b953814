"""`edgekit doctor` on a board over SSH: the doctor's modules are sent with the command and run from memory.

The board needs only `python3`. Where it is missing or too old, the findings come from the shell script of `probe`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial

from edgekit.doctor.libraries import NOT_INSTALLED
from edgekit.doctor.probe import Finding
from edgekit.remote.job import convert_result, read_document, read_job
from edgekit.remote.messages import receiver
from edgekit.remote.parallel import HostReporter
from edgekit.remote.prepare import EdgekitCommand, run_edgekit, use_installed
from edgekit.remote.probe import MIN_PYTHON, Probe, probe
from edgekit.remote.program import program
from edgekit.remote.ssh import CommandResult, Connection, shell
from edgekit.text import one_line, printable

_LIBRARIES = ("numpy", "onnxruntime", "opencv")
_TIMEOUT_S = 900.0


@dataclass(frozen=True)
class Examined:
    """Findings of the doctor on a board.

    `python` is the path of the Python whose libraries were examined. `seen` has the files and tool outputs that were
    read, by title. `names` are the names of the board and its user, to be removed from `seen`.
    """

    findings: list[Finding]
    python: str | None = None
    seen: dict[str, str] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)


def examine_host(
    connection: Connection, reporter: HostReporter, *, capture: bool = False, install: bool = True
) -> Examined:
    """Return the doctor's findings on a board; nothing is written on the board.

    The libraries examined are those of a deployed release, else of the installed edgekit, else of the environment that
    `edgekit bench --host` made, else of the system. On a board without an installed edgekit, missing libraries are no
    faults: `bench` and `deploy` send their own.

    Args:
        connection: The board.
        reporter: Receives the progress.
        capture: Return the files and outputs that were read, too.
        install: False to run the doctor of the edgekit that is installed on the board instead of this one.

    Raises:
        HostError: The board cannot be examined.
    """
    label = connection.host.label
    board = probe(connection)
    if not install:
        done = _run_doctor(connection, reporter, use_installed(board, label), ["doctor", "--json"])
        return read_document(label, done, Examined)
    if board.python is None or board.python.version < MIN_PYTHON:
        return Examined(shell_findings(board))
    installed = board.commands[0] if board.commands else ""
    command = EdgekitCommand(tuple(shell(_CHOOSE_PYTHON, installed, board.root, board.python.path)))
    done = _run_doctor(connection, reporter, command, program("doctor", {"capture": capture}))
    result = read_job(label, done)["result"]
    seen = result.pop("seen", {}) if isinstance(result, dict) else {}
    examined = convert_result(label, result, Examined)
    if not board.commands:
        examined = replace(examined, findings=[*map(_not_needed, examined.findings)])
    return replace(examined, seen={one_line(title): _harmless(text) for title, text in seen.items()})


def _not_needed(finding: Finding) -> Finding:
    """Return a missing library of a new board as a note instead of a fault."""
    if finding.check in _LIBRARIES and finding.text == NOT_INSTALLED:
        text = "not installed, and not needed: bench --host and deploy send their own"
        return Finding(finding.check, "unknown", text)
    return finding


def shell_findings(board: Probe) -> list[Finding]:
    """Return findings from the properties that `probe` read, for a board whose Python cannot run the doctor."""
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
        findings.append(Finding("python", "fault", "python3 is missing or does not start", "sudo apt install python3"))
    else:
        version, oldest = ("{}.{}".format(*version) for version in (board.python.version, MIN_PYTHON))
        cure = "install Raspberry Pi OS Bookworm or later"
        findings.append(Finding("python", "fault", f"{version}: older than {oldest}", cure))
    return [*findings, Finding("all else", "unknown", "not examined, because the doctor needs Python")]


def _run_doctor(
    connection: Connection, reporter: HostReporter, command: EdgekitCommand, arguments: list[str]
) -> CommandResult:
    progress = partial(reporter.progress, connection.host)
    receive = receiver(lambda _: None, progress)
    return run_edgekit(connection, command, arguments, timeout_s=_TIMEOUT_S, on_stderr_line=receive)


def _harmless(text: str) -> str:
    return "\t".join(printable(part) for part in text.replace("\0", "\\0").split("\t"))


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
    newest=$(ls -t "$2"/envs/*/.ready 2>/dev/null | head -n 1)
    python=${newest%/.ready}/bin/python
    [ -n "$newest" ] && works "$python" || python=$3
fi
shift 3
exec "$python" "$@"
"""
