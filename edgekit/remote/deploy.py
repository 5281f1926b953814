"""Releases on boards over SSH: send a release and switch to it, go back to an earlier one, list them, remove all.

One program on the board makes all changes (`board/deploy.py`). It completes what it has begun even if the connection is
lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from operator import attrgetter
from typing import Any, Literal, TypeVar

from edgekit import __version__
from edgekit.errors import HostError
from edgekit.remote.hosts import Host
from edgekit.remote.parallel import HostReporter, HostResult, run_on_hosts
from edgekit.remote.payload import Upload
from edgekit.remote.prepare import check_fit, prepare
from edgekit.remote.probe import Probe, probe
from edgekit.remote.program import run_program
from edgekit.remote.ssh import Connection, ConnectionLostError

_T = TypeVar("_T")

# A little more than the 180 s after which a service without a frame fails (device/service/__init__.py).
_HEALTH_S = 200
SETTLE_S = 10
_TRIAL_S = 300
# Largest number of starts: an interrupted change is completed first, and each of the two changes can go back.
_MAX_STARTS = 4
# Time for all other steps, on a slow card.
_STEPS_S = 700


@dataclass(frozen=True)
class Service:
    """Service that runs the releases. With `scope` None it is a system service for root, else a user service."""

    name: str = "edgekit"
    scope: Literal["user", "system"] | None = None


@dataclass(frozen=True)
class Package:
    """A release to deploy.

    `files` maps names in the release, such as `model.onnx` or `model.ncnn` and `edgekit.toml`, to files of this
    machine. `camera` is the camera in the settings, which decides whether picamera2 is required. `extras` are required
    in addition to `edgekit-pi[device]`. `install` is False to use the edgekit that is installed on the board.
    `settle_s` is how long the release must run after its first frame.
    """

    files: Mapping[str, Upload]
    model_name: str
    keep: int
    camera: str | None = None
    extras: tuple[str, ...] = ()
    install: bool = True
    settle_s: float = SETTLE_S


@dataclass(frozen=True)
class ReleaseChange:
    """A change of the release on one board.

    `release` is the new release, `before` the one that ran before, `current` the one that runs now. `error` is why the
    new release failed and was replaced by `current`; None if it runs. `already_current` is True if the board had this
    release already, and nothing was changed.
    """

    release: str | None = None
    before: str | None = None
    current: str | None = None
    error: str | None = None
    already_current: bool = False


@dataclass(frozen=True)
class Release:
    """A release in the list of a board."""

    release: str
    model: str
    edgekit: str
    created_unix_s: int
    failed: bool


@dataclass(frozen=True)
class ServiceState:
    """State of a service, from `edgekit service status`; None where unknown."""

    state: str | None = None
    text: str | None = None
    last_exit: str | None = None
    manager: str | None = None


@dataclass(frozen=True)
class ReleaseList:
    """Releases of a board, and the state of their service; `cut` is True if a change was interrupted."""

    releases: tuple[Release, ...] = ()
    current: str | None = None
    cut: bool = False
    service: ServiceState = ServiceState()


@dataclass(frozen=True)
class Removal:
    """What was removed from a board: the service, the releases by name, and folders; `kept` are paths that stay."""

    service: bool = False
    releases: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


def deploy_host(connection: Connection, package: Package, service: Service, reporter: HostReporter) -> ReleaseChange:
    """Send a release to the board of an open connection and switch to it.

    Raises:
        HostError: The board rejected the release before anything was changed, or the connection was lost.
    """
    host = connection.host
    with _before_change():  # the error of a lost connection adds that nothing was changed
        board = probe(connection)
        reporter.message(host, board.describe())
        if not board.has_systemd:
            raise HostError(f"{host.label}: no systemd, which starts the releases: use Raspberry Pi OS")
        edgekit = prepare(
            connection,
            board,
            list(package.files.values()),
            install=package.install,
            camera=package.camera,
            extras=package.extras,
            reporter=reporter,
        )
    change = _run_on_board(
        connection,
        board,
        service,
        reporter,
        "deploy",
        ReleaseChange,
        # The fields of `Releases.create` (board/releases.py); a file is its path on the board and its hash.
        files={name: [board.stored_path(upload), upload.sha256] for name, upload in package.files.items()},
        environment=edgekit.environment,
        code=edgekit.code,
        command=None if package.install else edgekit.words[0],  # the path of the edgekit that the board has
        about={"model": package.model_name, "edgekit": __version__},
        keep=package.keep,
        settle_s=package.settle_s,
    )
    return _with_state_in_error(change)


def rollback_host(connection: Connection, service: Service, to: str | None, reporter: HostReporter) -> ReleaseChange:
    """Switch the board of an open connection back to the release `to`; None: the release before the current one.

    The change has an error if that release fails on the board.

    Raises:
        HostError: The board rejected the change, or the connection was lost.
    """
    with _before_change():  # the error of a lost connection adds that nothing was changed
        board = probe(connection)
    change = _run_on_board(connection, board, service, reporter, "rollback", ReleaseChange, to=to, settle_s=SETTLE_S)
    return _with_state_in_error(change)


def list_host(connection: Connection, service: Service, reporter: HostReporter) -> ReleaseList:
    """Return the releases of the board of an open connection.

    Raises:
        HostError: The board returned no valid list.
    """
    return _run_on_board(connection, probe(connection), service, reporter, "releases", ReleaseList)


def undeploy_host(connection: Connection, service: Service, keep_data: bool, reporter: HostReporter) -> Removal:
    """Remove service, releases and folders from the board of an open connection.

    With `keep_data` the service's working folder and the settings of the current release stay.

    Raises:
        HostError: The service or a folder cannot be removed, or the connection was lost.
    """
    with _before_change():  # the error of a lost connection adds that nothing was changed
        board = probe(connection)
    return _run_on_board(connection, board, service, reporter, "undeploy", Removal, keep_data=keep_data)


def roll_out(
    hosts: Sequence[Host],
    work: Callable[[Connection], ReleaseChange],
    *,
    canary: int | None,
    parallel: int,
    finished: Callable[[HostResult[ReleaseChange]], None] = lambda _: None,
) -> Iterator[HostResult[ReleaseChange]]:
    """Call `work` for the first `canary` hosts, then for the others, and yield the result of each host.

    The hosts are divided into groups of at most `parallel` hosts, which are changed at the same time. After a failure
    in a group, the hosts of all later groups have results with `tried` False. A release that fails on its board is a
    failure, too. With `canary` None all hosts are one group, so a failure stops no other host.

    `finished` is called with each result as soon as it is there; results are yielded at the end of their group. After
    Ctrl-C, the results of the current group are the last ones (see `run_on_hosts`). A board that has begun its change
    completes it.
    """
    groups = [hosts]
    if canary is not None:
        groups = [*_groups(hosts[:canary], parallel), *_groups(hosts[canary:], parallel)]
    has_failed = False
    for group in groups:
        if has_failed:
            error = "not tried, because another board failed"
            yield from (HostResult(host, error=error, tried=False) for host in group)
            continue
        # The error of a `ReleaseChange`, for a release that failed on its board.
        results = run_on_hosts(group, work, parallel, finished, failure=attrgetter("error"))
        has_failed = any(done.error is not None for done in results)
        yield from results
        if any(done.interrupted for done in results):
            return


def _groups(hosts: Sequence[Host], size: int) -> list[Sequence[Host]]:
    return [hosts[start : start + size] for start in range(0, len(hosts), size)]


def change_document(done: HostResult[ReleaseChange]) -> dict[str, Any]:
    """Return the result of a host, ready for JSON; what is unknown, because the host failed, is None."""
    change = asdict(done.result) if done.result else {each.name: None for each in fields(ReleaseChange)}
    return {"host": done.host.label, **change, "error": done.error, "tried": done.tried}


@contextmanager
def _before_change() -> Iterator[None]:
    """If the connection is lost in the block, add to the error that nothing was changed on the board."""
    try:
        yield
    except ConnectionLostError as error:
        raise HostError(f"{error}; releases and service were not changed: repeat the command") from error


def _run_on_board(
    connection: Connection,
    board: Probe,
    service: Service,
    reporter: HostReporter,
    action: str,
    kind: type[_T],
    **details: Any,
) -> _T:
    """Run an action of `board/deploy.py` on the board and return its result as an instance of `kind`.

    `action` is "deploy", "rollback", "releases" or "undeploy", `details` are its own fields of the plan.

    Raises:
        HostError: The board rejected the action, or the connection was lost.
    """
    host = connection.host
    python = check_fit(board, host.label)
    plan = {
        "action": action,
        "name": service.name,
        "scope": service.scope,
        "health_s": _HEALTH_S,
        "trial_s": _TRIAL_S,
        **details,
    }
    settle_s = details.get("settle_s", 0)  # the actions without it start no release
    timeout_s = _TRIAL_S + _MAX_STARTS * (_HEALTH_S + settle_s) + _STEPS_S
    try:
        return run_program(connection, [python.path], "deploy", plan, reporter, kind=kind, timeout_s=timeout_s)
    except ConnectionLostError as error:
        raise HostError(f"{error}; the board completes what it has begun: check with 'edgekit releases'") from error


def _with_state_in_error(change: ReleaseChange) -> ReleaseChange:
    """Return a change; its error, if it has one, also names the release that failed and the one that runs now."""
    if change.error is None:
        return change
    state = f"{change.current} runs again" if change.current else "nothing runs, as before"
    return replace(change, error=f"{change.release} failed ({change.error}): {state}")
