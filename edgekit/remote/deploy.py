"""Releases on boards over SSH: send one, have the board put it into place, go back, list them.

What changes a board is done there by one program (`board/deploy.py`), which completes what it began when the connection
ends.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from edgekit import __version__
from edgekit.errors import HostError
from edgekit.remote.hosts import Host
from edgekit.remote.parallel import Listener, on_boards
from edgekit.remote.prepare import check_fit, check_space, prepare, use_installed
from edgekit.remote.probe import Probe, probe
from edgekit.remote.program import program
from edgekit.remote.ssh import Connection, ConnectionLostError
from edgekit.remote.transfer import Upload, send
from edgekit.text import one_line

_LIMIT_BYTES = 1 << 20
# The service counts as failed 180 s after its start without a frame (device/service/spec.py); a little more.
_HEALTH_S = 200
_SETTLE_S = 10
_TRIAL_S = 300
# The trial, two waits for health, and what the steps between take on a slow card.
_TIMEOUT_S = 1800


@dataclass(frozen=True)
class Service:
    """Which service the releases are for: its name, and whose it is; None: root's are the system's."""

    name: str = "edgekit"
    scope: Literal["user", "system"] | None = None


@dataclass(frozen=True)
class Package:
    """What is deployed and how.

    `files` are those of the release by their names there: `model.onnx` or `model.ncnn`, `edgekit.toml` and more.
    `camera` is the settings' camera, by which the board's picamera2 is wanted or not; `extras` are what settings and
    model need beside `edgekit[device]`; `install` is False where the board's own edgekit is to be used. `settle_s` is
    how long a new release must run after its first frame.
    """

    files: Mapping[str, Upload]
    model_name: str
    keep: int
    camera: str | None = None
    extras: tuple[str, ...] = ()
    install: bool = True
    settle_s: float = _SETTLE_S


@dataclass(frozen=True)
class Outcome:
    """What became of one board: `error` is None if the release runs; `tried` is False where it was not reached for.

    `service_installed` is False on a board without systemd, where the release is in place but not started.
    """

    host: Host
    release: str | None = None
    before: str | None = None
    current: str | None = None
    error: str | None = None
    tried: bool = True
    service_installed: bool = True

    def as_document(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return {**vars(self), "host": self.host.label}


@dataclass(frozen=True)
class Release:
    """One release as a board lists it."""

    release: str
    model: str
    edgekit: str
    created_unix_s: int
    failed: bool


@dataclass(frozen=True)
class Listed:
    """What a board has: its releases, the one in place, whether a change was cut off, and the service's state."""

    releases: tuple[Release, ...] = ()
    current: str | None = None
    cut: bool = False
    service: Mapping[str, Any] = field(default_factory=dict)


def deploy_host(connection: Connection, package: Package, service: Service, listener: Listener) -> Outcome:
    """Bring a release onto one board, have it switched to, and return what came of it; the connection is open.

    Raises:
        HostError: The board refused, before anything was changed there, or the connection was lost.
    """
    host = connection.host
    board = probe(connection)
    listener.say(host, board.describe())
    uploads = list(package.files.values())
    extra_bytes = sum(upload.size_bytes for upload in uploads if upload.name not in board.store.whole)
    environment = code = command = None
    if package.install:
        ready = prepare(
            connection,
            board,
            camera=_wants_picamera2(package.camera, board),
            extras=package.extras,
            extra_bytes=extra_bytes,
            tell=partial(listener.say, host),
            progress=lambda what, done, total: listener.progress(host, f"sending {what}", done, total),
        )
        assert ready.mark is not None
        environment = ready.mark.rpartition("/")[0]
        code = ready.command[1].partition("=")[2]
    else:
        command = use_installed(board, host.label).command[0]
        check_space(board, (), extra_bytes, host.label)
    for upload in uploads:
        send(connection, board.store, upload, partial(listener.progress, host, f"sending {upload.path.name}"))
    plan = {
        **_plan("deploy", service),
        "files": {name: [board.store.path(upload), upload.sha256] for name, upload in package.files.items()},
        "environment": environment,
        "code": code,
        "command": command,
        "about": {"model": package.model_name, "edgekit": __version__},
        "keep": package.keep,
        "settle_s": package.settle_s,
    }
    return _outcome(host, _on_board(connection, board, plan, listener))


def rollback_host(
    connection: Connection, service: Service, to: str | None, listener: Listener, settle_s: float = _SETTLE_S
) -> Outcome:
    """Have one board go back to the release before, or to the one named, and return what came of it.

    Raises:
        HostError: The board refused, or the connection was lost.
    """
    plan = {**_plan("rollback", service), "to": to, "settle_s": settle_s}
    return _outcome(connection.host, _on_board(connection, probe(connection), plan, listener))


def list_host(connection: Connection, service: Service, listener: Listener) -> Listed:
    """Return the releases of one board.

    Raises:
        HostError: The board does not tell.
    """
    label = connection.host.label
    told = _on_board(connection, probe(connection), _plan("releases", service), listener)
    rows, state = told.get("releases"), told.get("service") or {}
    if not isinstance(rows, list) or not isinstance(state, dict):
        raise HostError(f"{label}: its list of releases makes no sense")
    try:
        releases = tuple(
            Release(
                _shown(row["release"]) or "",
                _shown(row["model"]) or "",
                _shown(row["edgekit"]) or "",
                int(row["created_unix_s"]),
                row["failed"] is True,
            )
            for row in rows
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise HostError(f"{label}: its list of releases makes no sense") from error
    known = {name: _shown(state.get(name)) for name in ("state", "text", "last_exit", "manager")}
    return Listed(releases, _shown(told.get("current")), told.get("cut") is True, known)


def on_hosts(
    hosts: Sequence[Host], work: Callable[[Connection], Outcome], *, canary: int, parallel: int
) -> Iterator[Outcome]:
    """Yield what became of each board: the first `canary` together, then `parallel` at a time, none after a failure.

    Args:
        hosts: The boards.
        work: Done with each one's open connection.
        canary: How many go first.
        parallel: How many are worked on at a time.
    """
    waves = [hosts[:canary], *(hosts[at : at + parallel] for at in range(canary, len(hosts), parallel))]
    failed = False
    for wave in waves:
        if failed:
            yield from (Outcome(host, error="not tried, because another board failed", tried=False) for host in wave)
            continue
        # Ctrl-C: what waits is not begun; a board that has begun its own part completes it.
        outcomes = [done.result or Outcome(done.host, error=done.error) for done in on_boards(wave, work, parallel)]
        failed = any(outcome.error is not None for outcome in outcomes)
        yield from outcomes


def _plan(action: str, service: Service) -> dict[str, Any]:
    return {
        "action": action,
        "name": service.name,
        "scope": service.scope,
        "health_s": _HEALTH_S,
        "trial_s": _TRIAL_S,
    }


def _on_board(connection: Connection, board: Probe, plan: Mapping[str, Any], listener: Listener) -> dict[str, Any]:
    host = connection.host
    python = check_fit(board, host.label)
    try:
        done = connection.run(
            [python.path, *program("deploy", plan)],
            timeout_s=_TIMEOUT_S,
            limit_bytes=_LIMIT_BYTES,
            on_stderr_line=lambda line: listener.say(host, one_line(line)[:300]),
        )
    except ConnectionLostError as error:
        raise HostError(f"{error}; the board completes what it began: 'edgekit releases' tells") from error
    if done.returncode != 0:
        raise HostError(f"{host.label}: {done.complaint or f'exit code {done.returncode}'}")
    try:
        told = json.loads(done.text)
    except (ValueError, RecursionError) as error:
        raise HostError(f"{host.label}: its answer is no JSON") from error
    if not isinstance(told, dict):
        raise HostError(f"{host.label}: its answer makes no sense")
    return told


def _outcome(host: Host, told: Mapping[str, Any]) -> Outcome:
    release, before, current = (_shown(told.get(name)) for name in ("release", "before", "current"))
    if told.get("error") is not None:
        kept = f"{current} runs again" if current else "nothing runs, as before"
        error = f"{release} did not do well ({_shown(told['error'])}): {kept}"
        return Outcome(host, release, before, current, error)
    if release is None or current != release:
        raise HostError(f"{host.label}: its answer makes no sense")
    return Outcome(host, release, before, current, service_installed=told.get("service_installed") is not False)


def _wants_picamera2(camera: str | None, board: Probe) -> bool:
    if camera == "auto":
        return board.python is not None and board.python.picamera2
    return camera is not None and camera.startswith("picamera2")


def _shown(value: object) -> str | None:
    return None if value is None else one_line(str(value))[:300]
