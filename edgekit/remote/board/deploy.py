"""Runs on the board: puts a release into place, watches it, and takes it back if it does not do well.

A hang-up does not end it: what it has begun it completes, whether anybody listens or not. Before each step that counts
on an earlier one, that one's content is on the disk (fsync of the file, then of its folder; sync for an environment).

What a cut (SIGKILL, power) leaves behind after each step, and who mends it:

1. growing `releases/.new-ID`: nothing has changed; the next call removes it.
2. tried, synced and renamed to `releases/ID`: a whole release that nobody uses.
3. `pending` names it and its predecessor: as before.
4. `current` renamed onto it: the predecessor's process runs on; any start, by hand, at boot or after a failure, runs
   the new release, which has shown that it loads and classifies. The next call restarts the service and judges it.
5. service told to restart, one message to systemd, so there is no half of it: the new release runs. The next call
   judges it, and goes back to the predecessor if it is ill.
6. ill, `current` renamed back: the predecessor runs after any start; the next call restarts it.
7. `pending` removed: done. Old releases are renamed before they are deleted, so that no half of one is taken for whole.

On a board without systemd steps 5 and 6 do nothing: whoever starts `edgekit run` there restarts it.

At no step is a release changed that `current` names, and the predecessor is never deleted before the next release.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import signal
from typing import Any

from edgekit.errors import HostError
from edgekit.remote.board.releases import Releases
from edgekit.remote.board.runtime import say
from edgekit.remote.board.service import Service


def main(plan: dict[str, Any]) -> int:
    """Do the plan's `action`: deploy, rollback (`to` a release or the one before), releases; print what came of it.

    The plan also has the service's `name` and `scope`, and how long to wait (`health_s`, `settle_s`); for a deploy what
    `Releases.grow` takes, and how many releases to `keep`.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    releases = Releases(plan["name"])
    scope = plan["scope"] or ("system" if os.geteuid() == 0 else "user")
    service = Service(releases, plan["name"], scope, plan["health_s"], plan.get("settle_s", 0))
    came = _listed(releases, service) if plan["action"] == "releases" else _changed(releases, service, plan)
    with contextlib.suppress(OSError):
        print(json.dumps(came), flush=True)
    return 0


def _changed(releases: Releases, service: Service, plan: dict[str, Any]) -> dict[str, Any]:
    if plan["action"] == "deploy":
        for folder in (releases.folder, releases.data):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    elif not releases.folder.is_dir():
        raise HostError(f"nothing was deployed there as '{plan['name']}'")
    with open(releases.root / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HostError("another deploy or rollback is under way there: wait for it") from None
        _recover(releases, service)
        before = releases.current()
        target = releases.grow(plan) if plan["action"] == "deploy" else _rollback_target(releases, plan["to"])
        ill = _activate(releases, service, target)
        if plan["action"] == "deploy":
            releases.forget(plan["keep"])
    return {
        "release": target,
        "before": before,
        "current": releases.current(),
        "error": ill,
        "service_installed": service.is_managed,
    }


def _activate(releases: Releases, service: Service, release: str) -> str | None:
    """Switch to a release and judge it; return why it is ill, None if it is well.

    If it is ill, what ran before runs again.
    """
    previous = releases.current()
    service.refuse_strangers(release)
    releases.begin(release, previous)
    releases.place(release)
    if service.is_managed:
        say(f"switched to {release}, waiting for its first frame")
    else:
        say(f"switched to {release}; no service was installed, because this board does not run systemd")
        say(f"start it with this board's service manager: edgekit run {shlex.join(service.run_options(release))}")
    ill = service.start_and_judge(release)
    if ill is not None:
        _go_back(releases, service, release, previous, ill)
    releases.end()
    return ill


def _recover(releases: Releases, service: Service) -> None:
    """Bring what a cut left undone to an end: judge the release in place, go back if it is ill."""
    releases.sweep()
    begun = releases.begun()
    if begun is None:
        return
    current = releases.current()
    if current is not None:
        say(f"an earlier call was cut off: looking whether {current} does well")
        ill = service.start_and_judge(current)
        if ill is not None and current == begun["release"]:
            _go_back(releases, service, current, begun["previous"], ill)
    releases.end()


def _go_back(releases: Releases, service: Service, release: str, previous: str | None, why: str) -> None:
    say(f"{release}: {why}")
    releases.mark_failed(release, why)
    if previous is None:
        service.remove(release)
        releases.place(None)
        return
    say(f"going back to {previous}")
    releases.place(previous)
    ill = service.start_and_judge(previous)
    if ill is not None:
        raise HostError(f"{release} did not do well, and {previous}, which is back in place, says: {ill}")


def _rollback_target(releases: Releases, wanted: str | None) -> str:
    current = releases.current()
    target = releases.about(current)["previous"] if wanted is None and current else wanted
    if target is None:
        raise HostError("there is no release before the current one")
    if target not in releases.ids():
        raise HostError(f"there is no release {target!r}: 'edgekit releases' lists them")
    if target == current:
        raise HostError(f"release {target} is the current one")
    releases.check(target)
    return target


def _listed(releases: Releases, service: Service) -> dict[str, Any]:
    current = releases.current()
    rows = [_row(releases, name) for name in releases.ids()]
    try:
        status = service.status(current) if current else None
    except HostError as error:
        status = {"state": f"unknown: {error}"}
    return {"releases": rows, "current": current, "cut": releases.begun() is not None, "service": status}


def _row(releases: Releases, name: str) -> dict[str, Any]:
    try:
        about = {**releases.about(name), "failed": (releases.folder / name / "failed").exists()}
    except HostError:
        # The others are listed all the same: one of them is what to go back to.
        about = {"model": "damaged", "edgekit": "?", "created_unix_s": 0, "failed": True}
    return {**about, "release": name}
