"""Installs edgekit on a board: an isolated environment in the user's cache, from wheels that this machine sends.

`prepare` returns the command that calls edgekit on the board. Nothing is installed system-wide. `clean` removes all
files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from edgekit.errors import HostError
from edgekit.remote.messages import Notify, Progress
from edgekit.remote.parallel import HostReporter
from edgekit.remote.probe import MIN_PYTHON, Probe, Python
from edgekit.remote.program import run_program
from edgekit.remote.ssh import CommandResult, Connection, shell
from edgekit.remote.transfer import Upload, send
from edgekit.remote.wheels import Target, dependency_wheels, own_wheel

MACHINES = ("aarch64", "x86_64")
_SETUP_TIMEOUT_S = 1800
_CLEAN_TIMEOUT_S = 300
_KEPT_ENVIRONMENTS = 2
# Size of unpacked packages relative to their wheels, and free space that must remain on the board.
_UNPACKED_FACTOR = 4
_SPARE_BYTES = 100 << 20
_CLOCK_TOLERANCE_S = 300

# The system's picamera2 and simplejpeg are built for one numpy ABI (Bookworm: numpy 1.24). Environments that
# use them need a numpy of that ABI.
_CAMERA_CONSTRAINTS = {"bookworm": ("numpy>=1.24,<2",), "trixie": ("numpy>=2",)}


@dataclass(frozen=True)
class EdgekitCommand:
    """How to call edgekit on a board: `words` are the part of the command line before the subcommand.

    `environment` and `code` are the folders that `prepare` made on the board; None for an installed edgekit.
    `sent_bytes` is the number of bytes that were sent, 0 if nothing was missing.
    """

    words: tuple[str, ...]
    environment: str | None = None
    code: str | None = None
    sent_bytes: int = 0


def prepare_and_send(
    connection: Connection,
    board: Probe,
    uploads: Sequence[Upload],
    *,
    install: bool,
    camera: str | None,
    extras: tuple[str, ...],
    reporter: HostReporter,
) -> EdgekitCommand:
    """Install edgekit on the board, send files to its store, and return how to call edgekit there.

    Args:
        connection: The board.
        board: Its properties.
        uploads: The files; they count in the result's `sent_bytes`.
        install: False to use the edgekit that is installed on the board.
        camera: The value of `run --camera`, which decides whether picamera2 is required.
        extras: Extras to install in addition to `edgekit-pi[device]`.
        reporter: Receives messages and progress.

    Raises:
        HostError: The board cannot be prepared, or cannot store a file.
    """
    host, extra_bytes = connection.host, board.store.missing_bytes(uploads)
    if install:
        command = prepare(
            connection,
            board,
            camera=_needs_picamera2(camera, board),
            extras=extras,
            extra_bytes=extra_bytes,
            notify=partial(reporter.message, host),
            progress=partial(reporter.progress, host),
        )
    else:
        command = use_installed(board, host.label)
        _check_space(board, (), extra_bytes, host.label)
    sent_bytes = command.sent_bytes
    for upload in uploads:
        progress = partial(reporter.progress, host, f"sending {upload.path.name}")
        sent_bytes += send(connection, board.store, upload, progress)
    return replace(command, sent_bytes=sent_bytes)


def check_fit(probe: Probe, label: str) -> Python:
    """Return the board's Python if edgekit can run on the board.

    Raises:
        HostError: edgekit cannot run on the board; the message names the reason and the cure.
    """
    python = probe.python
    bits = {probe.system_bits, python.bits if python else None} - {None}
    if probe.machine.startswith(("armv6", "armv7")) or 32 in bits:
        raise HostError(
            f"{label}: 32-bit system ({probe.machine}), and onnxruntime has no 32-bit packages:"
            " install the 64-bit Raspberry Pi OS. Nothing was installed"
        )
    if probe.machine not in MACHINES:
        raise HostError(
            f"{label}: processor '{probe.machine}' is not supported: edgekit runs on {' and '.join(MACHINES)}"
        )
    if python is None:
        raise HostError(f"{label}: no python3 on the board: sudo apt install python3")
    if python.version < MIN_PYTHON:
        raise HostError(
            f"{label}: Python {python.version[0]}.{python.version[1]} is too old, edgekit needs {MIN_PYTHON[0]}."
            f"{MIN_PYTHON[1]} or later: install Raspberry Pi OS Bookworm or later"
        )
    if probe.glibc is None:
        raise HostError(f"{label}: no GNU C library, which onnxruntime needs: install Raspberry Pi OS")
    return python


def prepare(
    connection: Connection,
    probe: Probe,
    *,
    camera: bool = False,
    extras: tuple[str, ...] = (),
    extra_bytes: int = 0,
    notify: Notify = lambda _: None,
    progress: Progress = lambda _, __, ___: None,
) -> EdgekitCommand:
    """Install edgekit on the board, sending only what is missing.

    Args:
        connection: The board.
        probe: Its properties.
        camera: Whether the environment needs the system's picamera2.
        extras: Extras to install in addition to `edgekit-pi[device]`, such as `mqtt`.
        extra_bytes: Size of the files that are sent afterwards, for the check of free space.
        notify: Called with one line at each step.
        progress: Called with the name of a step, how much of it is done, and the total; for files sent, in bytes.

    Raises:
        HostError: The board cannot be prepared; the message names the reason.
    """
    label = connection.host.label
    python = check_fit(probe, label)
    assert probe.glibc is not None
    if camera and not python.picamera2:
        raise HostError(f"{label}: no picamera2 on the board: sudo apt install python3-picamera2")
    if abs(probe.clock_ahead_s) > _CLOCK_TOLERANCE_S:
        direction = "ahead of" if probe.clock_ahead_s > 0 else "behind"
        notify(f"the board's clock is {abs(probe.clock_ahead_s):.0f} s {direction} this machine's")
    constraints = _CAMERA_CONSTRAINTS.get(probe.release or "", ()) if camera else ()
    own = own_wheel()
    target = Target(probe.machine, python.version, probe.glibc, constraints, extras)
    wheels = dependency_wheels(own, target, is_cancelled=connection.closed.is_set)
    environment = _environment_key([upload.sha256 for upload in wheels], python, camera)
    missing = [] if environment in probe.environments else list(wheels)
    missing += [] if own.sha256 in probe.codes else [own]
    _check_space(probe, missing, extra_bytes, label)
    sent_bytes = 0
    for upload in missing:
        sent_bytes += send(
            connection, probe.store, upload, partial(progress, f"sending {upload.path.name.split('-')[0]}")
        )
    if missing:
        plan = {
            "root": probe.root,
            "environment": environment,
            "code": own.sha256,
            "wheels": [probe.store.path(upload) for upload in wheels],
            "own_wheel": probe.store.path(own),
            "system_packages": camera,
            "keep": _KEPT_ENVIRONMENTS,
        }
        run_program(
            connection, python.path, "setup", plan, notify, progress, kind=type(None), timeout_s=_SETUP_TIMEOUT_S
        )
    folder = f"{probe.root}/envs/{environment}"
    code = f"{probe.root}/code/{own.sha256}"
    words = ("env", f"PYTHONPATH={code}", f"{folder}/bin/python", "-P", "-m", "edgekit.cli")
    return EdgekitCommand(words, folder, code, sent_bytes)


def _needs_picamera2(camera: str | None, probe: Probe) -> bool:
    """Return whether a camera needs the picamera2 of the board's system; `camera` is the value of `run --camera`."""
    if camera == "auto":  # a USB camera, if the board has no picamera2
        return probe.python is not None and probe.python.picamera2
    return camera is not None and camera.startswith("picamera2")


def use_installed(probe: Probe, label: str) -> EdgekitCommand:
    """Return how to call the edgekit that is installed on the board.

    Raises:
        HostError: No edgekit is installed.
    """
    if not probe.commands:
        raise HostError(f"{label}: no 'edgekit' is installed on the board: install it, or leave out --no-install")
    return EdgekitCommand((probe.commands[0],))


def run_edgekit(
    connection: Connection,
    command: EdgekitCommand,
    arguments: Sequence[str],
    *,
    job: Any = None,
    timeout_s: float | None = None,
    on_stderr_line: Callable[[str], None] | None = None,
) -> CommandResult:
    """Run an edgekit command on the board; it is terminated when the connection ends.

    Args:
        connection: The board.
        command: How to call edgekit on the board.
        arguments: The subcommand and its arguments.
        job: A JSON document for the command's stdin.
        timeout_s: Maximum duration; None for no limit.
        on_stderr_line: As for `Connection.run`.
    """
    locks = [f"{folder}/.ready" if folder else "" for folder in (command.environment, command.code)]
    return connection.run(
        shell(_RUN, *locks, *command.words, *arguments),
        stdin=f"{json.dumps(job, default=str)}\n".encode(),
        hold_stdin=True,
        timeout_s=timeout_s,
        on_stderr_line=on_stderr_line,
    )


def clean(connection: Connection) -> int:
    """Remove edgekit's files from the board's cache and return their size in KiB.

    Raises:
        HostError: The files cannot be removed, or a running edgekit uses them.
    """
    done = connection.run(shell(_CLEAN), timeout_s=_CLEAN_TIMEOUT_S)
    if done.returncode == _IN_USE:
        raise HostError(f"{connection.host.label}: a running edgekit uses the files: try again when it has ended")
    if done.returncode != 0 or not done.text.strip().isdecimal():
        raise HostError(f"{connection.host.label}: cleaning failed: {done.last_error_line or 'no reason given'}")
    return int(done.text)


def _environment_key(hashes: Sequence[str], python: Python, camera: bool) -> str:
    content = [sorted(hashes), python.version, python.path, camera]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _check_space(probe: Probe, missing: Sequence[Upload], extra_bytes: int, label: str) -> None:
    """Check that the board's disk has space for the missing wheels, for their content, and for `extra_bytes` more.

    Raises:
        HostError: There is too little space.
    """
    needed = sum(upload.size_bytes for upload in missing) * (1 + _UNPACKED_FACTOR) + extra_bytes
    if needed and probe.free_bytes is not None and probe.free_bytes < needed + _SPARE_BYTES:
        raise HostError(
            f"{label}: {probe.free_bytes >> 20} MiB of the board's disk are free, {needed + _SPARE_BYTES >> 20} MiB are"
            " needed: free some space there ('edgekit host clean' removes files of earlier runs)"
        )


_IN_USE = 8

# $1, $2: the files to lock while the command runs, or nothing: `board/setup.py` removes no folder whose file is locked.
# The store, which has the models of a benchmark, is locked against `clean`, also for an installed edgekit.
# The first line of stdin is the job, the command's own stdin. When stdin ends with the connection, the command is
# terminated, and killed if it has not ended after 120 s.
_RUN = """
store=${XDG_CACHE_HOME:-$HOME/.cache}/edgekit/board/store
if [ -d "$store" ]; then exec 7<"$store" && flock -s 7 || exit 70; fi
if [ -n "$1" ]; then
    exec 8<"$1" 9<"$2" || exit 70
    flock -s 8 && flock -s 9 || exit 70
    touch "$1" "$2"
fi
shift 2
IFS= read -r job
exec 3<&0
setsid "$@" 3<&- <<END &
$job
END
child=$!
{
    cat <&3
    kill -s TERM -- "-$child"
    left=120
    while [ "$left" -gt 0 ] && kill -s 0 -- "-$child"; do left=$((left - 1)); sleep 1; done
    kill -s KILL -- "-$child"
} >/dev/null 2>&1 7<&- 8<&- 9<&- &
watch=$!
exec 3<&-
wait "$child"
code=$?
kill "$watch" 2>/dev/null
exit "$code"
"""

_CLEAN = """
set -eu
cache=${XDG_CACHE_HOME:-$HOME/.cache}/edgekit
root=$cache/board
# The notes of failed downloads; the files of an edgekit that is installed on the board stay.
finish() { rm -f "$cache"/*.failed; echo "$1"; exit 0; }
[ -d "$root" ] || finish 0
exec 8>>"$root/setup.lock"
flock -n 8 || exit 8
for mark in "$root"/envs/*/.ready "$root/store"; do
    [ -e "$mark" ] || continue
    flock -n -x "$mark" true || exit 8
done
size=$(du -sk "$root")
rm -rf --one-file-system "$root"
finish "${size%%[!0-9]*}"
"""
