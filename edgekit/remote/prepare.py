"""Makes a board ready: an isolated environment in its user's cache, from wheels that this machine sends.

`prepare` returns how to call edgekit there. Nothing is installed system-wide; `clean` removes all of it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from edgekit.errors import HostError
from edgekit.remote.board.setup import WHEELS_GONE
from edgekit.remote.probe import MIN_PYTHON, Probe, Python
from edgekit.remote.probe import probe as ask
from edgekit.remote.program import program
from edgekit.remote.ssh import Completed, Connection, shell
from edgekit.remote.transfer import Upload, send
from edgekit.remote.wheels import Target, dependency_wheels, own_wheel
from edgekit.text import one_line

MACHINES = ("aarch64", "x86_64")
_SETUP_TIMEOUT_S = 1800
_CLEAN_TIMEOUT_S = 300
_KEPT_ENVIRONMENTS = 2
_ATTEMPTS = 3
# What unpacked packages take beside their wheels, and what a board should have left afterwards.
_UNPACKED_FACTOR = 4
_SPARE_BYTES = 100 << 20
_CLOCK_TOLERANCE_S = 300

# The system's picamera2 and simplejpeg are built for one numpy ABI (Bookworm: numpy 1.24); an environment that sees
# them must stay with it.
_CAMERA_CONSTRAINTS = {"bookworm": ("numpy>=1.24,<2",), "trixie": ("numpy>=2",)}

Tell = Callable[[str], None]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Ready:
    """How to call edgekit on a board: the words before its subcommand, and the mark that keeps it from being cleaned.

    `sent_bytes` is what preparing had to send: 0 where everything was there.
    """

    command: tuple[str, ...]
    mark: str | None
    sent_bytes: int = 0


def check_fit(probe: Probe, label: str) -> Python:
    """Return the board's Python if edgekit can run there.

    Raises:
        HostError: It cannot; the message says why and what would help.
    """
    python = probe.python
    bits = {probe.system_bits, python.bits if python else None} - {None}
    if probe.machine.startswith(("armv6", "armv7")) or 32 in bits:
        raise HostError(
            f"{label}: it runs a 32-bit system ({probe.machine}), and onnxruntime has no 32-bit packages:"
            " install the 64-bit Raspberry Pi OS. Nothing was installed"
        )
    if probe.machine not in MACHINES:
        raise HostError(f"{label}: its processor is '{probe.machine}': edgekit runs on {' and '.join(MACHINES)}")
    if python is None:
        raise HostError(f"{label}: it has no python3: sudo apt install python3 on the board")
    if python.version < MIN_PYTHON:
        raise HostError(
            f"{label}: it has Python {python.version[0]}.{python.version[1]}, edgekit needs {MIN_PYTHON[0]}."
            f"{MIN_PYTHON[1]} or later: install Raspberry Pi OS Bookworm or later"
        )
    if probe.glibc is None:
        raise HostError(f"{label}: it has no GNU C library, for which onnxruntime is built")
    return python


def prepare(
    connection: Connection,
    probe: Probe,
    *,
    camera: bool = False,
    extras: tuple[str, ...] = (),
    extra_bytes: int = 0,
    tell: Tell = lambda _: None,
    progress: Progress = lambda _, __, ___: None,
) -> Ready:
    """Make the board ready, sending only what is not there.

    Args:
        connection: The board.
        probe: What it said of itself.
        camera: Whether the environment must see the system's picamera2.
        extras: What the environment gets beside `edgekit[device]`, such as `mqtt`.
        extra_bytes: What else is to be sent afterwards, for the check of free space.
        tell: Called with a line at each step.
        progress: Called with what is being sent, the bytes there and all its bytes.

    Raises:
        HostError: It cannot be made ready; the message says why.
    """
    label = connection.host.label
    python = check_fit(probe, label)
    assert probe.glibc is not None
    if camera and not python.picamera2:
        raise HostError(f"{label}: it has no picamera2: sudo apt install python3-picamera2 on the board")
    constraints = _CAMERA_CONSTRAINTS.get(probe.release or "", ()) if camera else ()
    if abs(probe.clock_ahead_s) > _CLOCK_TOLERANCE_S:
        way = "ahead of" if probe.clock_ahead_s > 0 else "behind"
        tell(f"its clock is {abs(probe.clock_ahead_s):.0f} s {way} this machine's")
    own = own_wheel()
    wheels = dependency_wheels(own, Target(probe.machine, python.version, probe.glibc, constraints, extras))
    environment = _key([upload.sha256 for upload in wheels], python, camera)
    sent = 0
    for _ in range(_ATTEMPTS):
        missing = [] if environment in probe.environments else list(wheels)
        missing += [] if own.sha256 in probe.codes else [own]
        if not missing:
            break
        check_space(probe, missing, extra_bytes, label)
        for upload in missing:
            sent += send(connection, probe.store, upload, partial(progress, upload.path.name.split("-")[0]))
        plan = {
            "root": probe.root,
            "environment": environment,
            "code": own.sha256,
            "wheels": [probe.store.path(upload) for upload in wheels],
            "own_wheel": probe.store.path(own),
            "system_packages": camera,
            "keep": _KEPT_ENVIRONMENTS,
        }
        done = connection.run(
            [python.path, *program("setup", plan)],
            timeout_s=_SETUP_TIMEOUT_S,
            on_stderr_line=lambda line: tell(one_line(line)[:200]),
        )
        if done.returncode == WHEELS_GONE:
            tell("another edgekit used up what was sent: sending it again")
            probe = ask(connection)
        elif done.returncode != 0:
            raise HostError(f"{label}: installing failed: {done.complaint or f'exit code {done.returncode}'}")
        else:
            break
    else:
        raise HostError(f"{label}: other edgekits install there at the same time: try again when they are done")
    folder = f"{probe.root}/envs/{environment}"
    code = f"{probe.root}/code/{own.sha256}"
    command = ("env", f"PYTHONPATH={code}", f"{folder}/bin/python", "-m", "edgekit.cli")
    return Ready(command, f"{folder}/.ready", sent)


def use_installed(probe: Probe, label: str) -> Ready:
    """Return how to call the edgekit that the board has of its own.

    Raises:
        HostError: It has none.
    """
    if not probe.commands:
        raise HostError(f"{label}: it has no 'edgekit' of its own: install it there, or leave out --no-install")
    return Ready((probe.commands[0],), None)


def run_ready(
    connection: Connection,
    ready: Ready,
    arguments: Sequence[str],
    *,
    limit_bytes: int,
    timeout_s: float | None = None,
    silence_s: float | None = None,
    on_stderr_line: Callable[[str], None] | None = None,
    environment: Sequence[str] = (),
) -> Completed:
    """Run an edgekit command on the board; it ends when the connection does.

    Args:
        connection: The board.
        ready: How to call edgekit there.
        arguments: The subcommand and its arguments.
        limit_bytes: The most it may print on stdout.
        timeout_s: How long it may take; None: as long as it likes.
        silence_s: How long it may say nothing; None: as long as it likes.
        on_stderr_line: As for `Connection.run`.
        environment: Variables for it, as NAME=VALUE.
    """
    words = ["env", *environment, *ready.command, *arguments]
    return connection.run(
        shell(_RUN, ready.mark or "", *words),
        hold_stdin=True,
        timeout_s=timeout_s,
        silence_s=silence_s,
        limit_bytes=limit_bytes,
        on_stderr_line=on_stderr_line,
    )


def clean(connection: Connection) -> int:
    """Remove everything that edgekit put into the board's cache and return how many KiB that were.

    Raises:
        HostError: It cannot be removed, or an edgekit that runs there uses it.
    """
    done = connection.run(shell(_CLEAN), timeout_s=_CLEAN_TIMEOUT_S, limit_bytes=64)
    if done.returncode == _IN_USE:
        raise HostError(f"{connection.host.label}: an edgekit that runs there uses it: try again when it has ended")
    freed_kib = parse_freed(done.text)
    if done.returncode != 0 or freed_kib is None:
        raise HostError(f"{connection.host.label}: cleaning failed: {done.complaint or 'no reason given'}")
    return freed_kib


def parse_freed(text: str) -> int | None:
    """Return the KiB that a board says it has removed, None if it says something else."""
    return int(text) if re.fullmatch(r"[0-9]{1,15}\n", text) else None


def _key(hashes: Sequence[str], python: Python, camera: bool) -> str:
    what = [sorted(hashes), python.version, python.path, camera]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()


def check_space(probe: Probe, missing: Sequence[Upload], extra_bytes: int, label: str) -> None:
    """Refuse a board whose disk has no room for wheels, unpacked, and `extra_bytes` more.

    Raises:
        HostError: It has none.
    """
    needed = sum(upload.size_bytes for upload in missing) * (1 + _UNPACKED_FACTOR) + extra_bytes
    if needed and probe.free_bytes is not None and probe.free_bytes < needed + _SPARE_BYTES:
        raise HostError(
            f"{label}: {probe.free_bytes >> 20} MiB of its disk are free, {needed + _SPARE_BYTES >> 20} MiB are needed:"
            " free some space there ('edgekit host clean' removes what earlier runs left)"
        )


_IN_USE = 8

# $1: the mark to hold while the rest runs, or nothing. The end of stdin, the connection's, ends what runs.
_RUN = """
if [ -n "$1" ]; then
    exec 9<"$1" || exit 70
    flock -s 9 || exit 70
    touch "$1"
fi
shift
exec 3<&0
setsid "$@" </dev/null 3<&- &
child=$!
{ cat <&3; kill -s TERM -- "-$child"; sleep 10; kill -s KILL -- "-$child"; } >/dev/null 2>&1 9<&- &
watch=$!
exec 3<&-
wait "$child"
code=$?
kill "$watch" 2>/dev/null
exit "$code"
"""

_CLEAN = """
set -eu
root=${XDG_CACHE_HOME:-$HOME/.cache}/edgekit/board
[ -d "$root" ] || { echo 0; exit 0; }
exec 8>>"$root/setup.lock"
flock -n 8 || exit 8
for mark in "$root"/envs/*/.ready; do
    [ -f "$mark" ] || continue
    flock -n -x "$mark" true || exit 8
done
size=$(du -sk "$root")
rm -rf --one-file-system "$root"
echo "${size%%[!0-9]*}"
"""
