"""Runs on the board: switches to a release, checks that it runs, and switches back if it fails; removes all releases.

The program completes what it has begun even if the connection is lost (SIGHUP is ignored). Each step is on the disk
before a step that depends on it begins (fsync of the file, then of its folder; sync for an environment).

State after an interruption (SIGKILL, power cut) at each step, and who repairs it:

1. `releases/.new-ID` is being filled: nothing has changed; the next call removes it.
2. The folder is tried, synced and renamed to `releases/ID`: the release is complete, but not used.
3. `pending` names the release and its predecessor: the release is still not used.
4. `current` links to the release: the predecessor's process continues; any start, by hand, at boot or after a failure,
   runs the new release, which has passed the trial. The next call restarts the service and checks the release.
5. systemd has received the request to restart the service, one message without a partial state: the new release runs.
   The next call checks the release, and goes back to the predecessor if the release fails.
6. The release has failed and `current` links to the predecessor: any start runs the predecessor; the next call
   restarts the service.
7. `pending` is removed: the change is complete. Old releases are renamed before they are deleted, so that every
   release with a final name is complete.

An undeploy removes the service, then `current`, renames the folder of releases, and deletes it: what an interruption
leaves is unused, and the next call removes it.

The release that `current` links to is never changed, and the predecessor is never deleted before the next release.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from collections.abc import Iterator
from typing import Any

from edgekit.deployed import unusable
from edgekit.errors import HostError
from edgekit.remote.board.loader import report
from edgekit.remote.board.releases import Releases
from edgekit.remote.board.service import Service


def main(plan: dict[str, Any]) -> dict[str, Any]:
    """Run the plan's `action` and return the result: "deploy", "rollback", "releases" (list them) or "undeploy".

    The plan also has the `name` and `scope` of the service (None: "system" for root, else "user"), and how long to wait
    for it (`health_s`, `settle_s`). A deploy has the fields of `Releases.create`, and `keep`, the number of releases to
    keep. A rollback has `to`, the release to switch to; None: the previous one. An undeploy has `keep_data`.
    """
    # sshd sends it when the connection is lost; what was begun is completed.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # `systemctl --user` needs it, and not every sshd sets it.
    os.environ.setdefault("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
    releases = Releases(plan["name"])
    scope = plan["scope"] or ("system" if os.geteuid() == 0 else "user")
    # Only a deploy and a rollback have `settle_s`.
    service = Service(releases, plan["name"], scope, plan["health_s"], plan.get("settle_s", 0))
    service.refuse_other_scope()
    if plan["action"] == "releases":
        return _list_releases(releases, service)
    if plan["action"] == "undeploy":
        return _undeploy(releases, service, plan["keep_data"])
    return _switch(releases, service, plan)


def _switch(releases: Releases, service: Service, plan: dict[str, Any]) -> dict[str, Any]:
    """Deploy a release, or roll back to one; return the fields of `ReleaseChange` (remote/deploy.py)."""
    if plan["action"] == "deploy":
        for folder in (releases.folder, releases.data):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    elif not releases.folder.is_dir():
        raise HostError(f"no release was deployed as service '{plan['name']}'")
    with _locked(releases):
        _recover(releases, service)
        before = releases.current()
        if plan["action"] == "rollback":
            target = _rollback_target(releases, plan["to"])
        else:
            # Repeating a deploy makes no second release of the same content.
            target = before if before and releases.has_current(plan) else releases.create(plan)
        error = _activate(releases, service, target)
        if plan["action"] == "deploy":  # a rollback adds no release
            releases.remove_old(plan["keep"])
    return {
        "release": target,
        "before": before,
        "current": releases.current(),
        "error": error,
        "already_current": target == before,
    }


def _undeploy(releases: Releases, service: Service, keep_data: bool) -> dict[str, Any]:
    """Remove the service, then the releases; a call that was interrupted is completed by the next one."""
    if not releases.root.is_dir():  # nothing was deployed
        return {"service": False, "releases": [], "folders": [], "kept": []}
    with _locked(releases):
        had_service = service.remove()
        names = releases.ids()
        folders, kept = releases.remove_all(keep_data)
    return {"service": had_service, "releases": names, "folders": folders, "kept": kept}


@contextlib.contextmanager
def _locked(releases: Releases) -> Iterator[None]:
    """Lock the releases against other programs of this kind for the duration of the block."""
    with open(releases.root / "lock", "w") as lock:  # closing it releases the lock
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HostError(
                "another deploy, rollback or undeploy is running on the board: wait until it has ended"
            ) from None
        yield


def _activate(releases: Releases, service: Service, release: str) -> str | None:
    """Switch to a release and check that it runs; return the reason of a failure, or None.

    After a failure the previous release runs again. If the release is the current one, only its service is started.

    Raises:
        HostError: The current release does not run.
    """
    previous = releases.current()
    service.refuse_foreign_service(release)
    if release == previous:
        is_running = service.status(release)["state"] == "running"
        error = None if is_running else service.restart_and_check(release)
        if error is not None:
            raise HostError(f"{release} is already current, and does not run: {error}")
        return None
    releases.begin(release, previous)  # if the switch is interrupted, the next call completes it
    releases.place(release)
    report(f"switched to {release}, waiting for its first frame")
    error = service.restart_and_check(release)
    if error is not None:
        _go_back(releases, service, release, previous, error)
    releases.end()  # not if `_go_back` raised an error: the next call then completes the change
    return error


def _recover(releases: Releases, service: Service) -> None:
    """Complete a change that was interrupted: check the current release, and go back if it fails.

    The current release is the new or the previous one, depending on where the change was interrupted.
    """
    releases.sweep()
    change = releases.unfinished()
    if change is None:
        return
    current = releases.current()
    if current is not None:
        report(f"an earlier call was interrupted: checking that {current} runs")
        error = service.restart_and_check(current)
        # If the previous release fails, there is none to go back to.
        if error is not None and current == change["release"]:
            _go_back(releases, service, current, change["previous"], error)
    releases.end()


def _go_back(releases: Releases, service: Service, release: str, previous: str | None, reason: str) -> None:
    """Mark a release as failed and run the previous one again; without a previous one, remove the service.

    Raises:
        HostError: The previous release fails, too.
    """
    report(f"{release}: {reason}")
    releases.mark_failed(release, reason)
    if previous is None:
        service.remove()
        releases.place(None)  # no release is current
        return
    report(f"going back to {previous}")
    releases.place(previous)
    error = service.restart_and_check(previous)
    if error is not None:
        raise HostError(f"{release} failed, and {previous}, which is current again, failed too: {error}")


def _rollback_target(releases: Releases, wanted: str | None) -> str:
    """Return the release to switch to, checked: `wanted`, or by default the one before the current release.

    The name of a release is NUMBER-HASH; `wanted` is such a name, or only the hash.
    """
    current = releases.current()
    if wanted is None and current is not None:
        wanted = releases.about(current)["previous"]
    if wanted is None:
        raise HostError(
            "the current release has no previous one: choose another release with --to; 'edgekit releases' lists them"
        )
    # The oldest first; several, if `wanted` is the hash of a model that was deployed several times.
    named = [name for name in releases.ids() if wanted in (name, name.partition("-")[2])]
    if not named:
        raise HostError(f"there is no release {wanted!r}: 'edgekit releases' lists them")
    if current in named:
        target = current
    else:
        not_failed = [name for name in named if not releases.has_failed(name)]
        target = (not_failed or named)[-1]  # the newest
    releases.check(target)
    return target


def _list_releases(releases: Releases, service: Service) -> dict[str, Any]:
    """Return the fields of `ReleaseList` (remote/deploy.py)."""
    current = releases.current()
    rows = [_row(releases, name) for name in releases.ids()]
    return {
        "releases": rows,
        "current": current,
        "cut": releases.unfinished() is not None,  # a change was interrupted
        "service": _service_state(releases, service, current),
    }


def _service_state(releases: Releases, service: Service, current: str | None) -> dict[str, Any] | None:
    """Return the state of the service, from the edgekit of the current release; None without a current release."""
    if current is None:
        return None
    # A broken release must not hide the list: its service has an unknown state.
    fault = unusable(releases.folder / current)
    try:
        return service.status(current) if fault is None else {"state": f"unknown: {fault}"}
    except HostError as error:
        return {"state": f"unknown: {error}"}


def _row(releases: Releases, name: str) -> dict[str, Any]:
    """Return the row of a release in the list of `_list_releases`."""
    try:
        about = {**releases.about(name), "failed": releases.has_failed(name)}
    except HostError:
        # A damaged release must not hide the others: the user may want to go back to one of them.
        about = {"model": "damaged", "edgekit": "?", "created_unix_s": 0, "failed": True}
    return {**about, "release": name}
