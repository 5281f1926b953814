"""Installs edgekit on a board and sends files: an environment in the user's cache, from wheels that this machine sends.

Nothing is installed system-wide. `clean` removes all files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from edgekit.errors import HostError
from edgekit.remote.parallel import HostReporter
from edgekit.remote.payload import Part, Target, Upload, archive, dependency_wheels, own_code
from edgekit.remote.probe import MIN_PYTHON, Probe, Python
from edgekit.remote.program import run_program
from edgekit.remote.ssh import CommandResult, Connection, shell

MACHINES = ("aarch64", "x86_64")
_SETUP_TIMEOUT_S = 3600
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


def prepare(
    connection: Connection,
    board: Probe,
    uploads: Sequence[Upload],
    *,
    install: bool,
    camera: str | None = None,
    extras: tuple[str, ...] = (),
    reporter: HostReporter,
) -> EdgekitCommand:
    """Send to a board what it lacks of edgekit and of `uploads`, and return how to call edgekit there.

    Args:
        connection: The board.
        board: Its properties.
        uploads: Files for the board's store.
        install: False to use the edgekit that is installed on the board.
        camera: The value of `run --camera`, which decides whether picamera2 is required.
        extras: Extras to install in addition to `edgekit-pi[device]`, such as `mqtt`.
        reporter: Receives messages and progress.

    Raises:
        HostError: The board cannot be prepared, or cannot store a file; the message names the reason.
    """
    host = connection.host
    packages: list[Part] = []
    system_packages = install and _needs_picamera2(camera, board)
    if install:
        python = check_fit(board, host.label)
        _report_clock(board, partial(reporter.message, host))
        if system_packages and not python.picamera2:
            raise HostError(f"{host.label}: no picamera2 on the board: sudo apt install python3-picamera2")
        command, packages = _installation(board, python, system_packages, extras)
    else:
        command = EdgekitCommand((board.own_edgekit(host.label),))
    # By name, because two uploads can be the same file.
    files = {upload.name: Part(f"store/{upload.name}", upload.path) for upload in uploads}
    parts = [*packages, *(part for name, part in files.items() if name not in board.stored)]
    sent_bytes = sum(part.size_bytes for part in parts)
    if parts:
        unpacked_bytes = _UNPACKED_FACTOR * sum(part.size_bytes for part in packages)
        _check_space(board, sent_bytes + unpacked_bytes, host.label)
        plan = {"root": board.root, "files": len(parts), "system_packages": system_packages, "keep": _KEPT_ENVIRONMENTS}
        run_program(
            connection,
            [check_python(board, host.label).path],  # the board's own Python, whichever edgekit is used
            "setup",
            plan,
            reporter,
            kind=type(None),  # it returns nothing
            timeout_s=_SETUP_TIMEOUT_S,
            stdin=archive(parts, partial(reporter.progress, host)),
        )
    return replace(command, sent_bytes=sent_bytes)


def _installation(
    board: Probe, python: Python, system_packages: bool, extras: tuple[str, ...]
) -> tuple[EdgekitCommand, list[Part]]:
    """Return how to call this machine's edgekit after it was sent to a board, and the files that the board lacks.

    Environment and code are in folders named by their content: what the board has already is not sent again.
    """
    wheels = dependency_wheels(_target(board, python, system_packages, extras))
    # With the path of Python, because the environment links to it.
    key = _key([path.name for path in wheels], python.version, python.path, system_packages)
    code_key = hashlib.sha256(own_code()).hexdigest()
    packages = []
    if key not in board.environments:
        packages += [Part(f"envs/{key}/{path.name}", path) for path in wheels]
    if code_key not in board.codes:
        packages.append(Part(f"code/{code_key}/code.zip", own_code()))
    environment, code = f"{board.root}/envs/{key}", f"{board.root}/code/{code_key}"
    words = ("env", f"PYTHONPATH={code}", f"{environment}/bin/python", "-P", "-m", "edgekit.cli")
    return EdgekitCommand(words, environment, code), packages


def _needs_picamera2(camera: str | None, board: Probe) -> bool:
    """Return whether a camera needs the picamera2 of the board's system; `camera` is the value of `run --camera`."""
    if camera == "auto":  # a USB camera, if the board has no picamera2
        return board.python is not None and board.python.picamera2
    return camera is not None and camera.startswith("picamera2")


def _target(board: Probe, python: Python, system_packages: bool, extras: tuple[str, ...]) -> Target:
    """Return the platform of a board's wheels; with `system_packages`, numpy must fit the system's picamera2."""
    assert board.glibc is not None
    constraints = _CAMERA_CONSTRAINTS.get(board.release or "", ()) if system_packages else ()
    return Target(board.machine, python.version, board.glibc, constraints, extras)


def _report_clock(board: Probe, notify: Callable[[str], None]) -> None:
    """Call `notify` if the board's clock differs by minutes from that of this machine."""
    if abs(board.clock_ahead_s) > _CLOCK_TOLERANCE_S:
        direction = "ahead of" if board.clock_ahead_s > 0 else "behind"
        notify(f"the board's clock is {abs(board.clock_ahead_s):.0f} s {direction} this machine's")


def _key(*content: object) -> str:
    """Return a hash of values: the name of an environment, equal for equal content."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def check_fit(probe: Probe, label: str) -> Python:
    """Return the board's Python if edgekit can run on the board.

    Raises:
        HostError: edgekit cannot run on the board; the message names the reason and the cure.
    """
    # A 64-bit kernel can run a 32-bit system, and a 64-bit system a 32-bit Python.
    has_32_bit_python = probe.python is not None and probe.python.bits == 32
    if probe.machine.startswith(("armv6", "armv7")) or probe.system_bits == 32 or has_32_bit_python:
        raise HostError(
            f"{label}: 32-bit system ({probe.machine}), and onnxruntime has no 32-bit packages:"
            " install the 64-bit Raspberry Pi OS. Nothing was installed"
        )
    if probe.machine not in MACHINES:
        raise HostError(
            f"{label}: processor '{probe.machine}' is not supported: edgekit runs on {' and '.join(MACHINES)}"
        )
    python = check_python(probe, label)
    if probe.glibc is None:
        raise HostError(f"{label}: no GNU C library, which onnxruntime needs: install Raspberry Pi OS")
    return python


def check_python(probe: Probe, label: str) -> Python:
    """Return the board's Python.

    Raises:
        HostError: It is missing or too old.
    """
    python = probe.python
    if python is None:
        raise HostError(f"{label}: no python3 on the board: sudo apt install python3")
    if python.version < MIN_PYTHON:
        raise HostError(
            f"{label}: Python {python.version[0]}.{python.version[1]} is too old, edgekit needs {MIN_PYTHON[0]}."
            f"{MIN_PYTHON[1]} or later: install Raspberry Pi OS Bookworm or later"
        )
    return python


def run_job(
    connection: Connection, board: Probe, command: EdgekitCommand, job: Any, on_stderr_line: Callable[[str], None]
) -> CommandResult:
    """Run `edgekit job` on the board, with a JSON document on its stdin; it ends when the connection ends.

    Until then, edgekit's files on the board are locked against `clean`, and against a `prepare` of another machine.
    """
    return connection.run(
        ["flock", "--shared", "--no-fork", f"{board.root}/lock", *command.words, "job"],
        stdin=f"{json.dumps(job, default=str)}\n".encode(),  # default: for paths
        hold_stdin=True,
        timeout_s=None,  # a benchmark can take hours
        on_stderr_line=on_stderr_line,
    )


def _check_space(board: Probe, needed_bytes: int, label: str) -> None:
    """Check that the board's disk has room for files of this size, and for a reserve."""
    needed_bytes += _SPARE_BYTES
    if board.free_bytes is not None and board.free_bytes < needed_bytes:
        raise HostError(
            f"{label}: {board.free_bytes >> 20} MiB of the board's disk are free, {needed_bytes >> 20} MiB are needed:"
            " free some space there ('edgekit host clean' removes files of earlier runs)"
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


_IN_USE = 8

# The notes of failed downloads are removed, too; the files of an edgekit that is installed on the board stay.
_CLEAN = """
set -eu
cache=${XDG_CACHE_HOME:-$HOME/.cache}/edgekit
root=$cache/board
rm -f "$cache"/*.failed
[ -d "$root" ] || { echo 0; exit 0; }
exec 9>>"$root/lock"
flock -n 9 || exit 8
size=$(du -sk "$root")
rm -rf --one-file-system "$root"
echo "${size%%[!0-9]*}"
"""
