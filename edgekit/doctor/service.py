"""Checks of the systemd service `edgekit` and of the releases that `edgekit deploy` has put on this machine."""

from __future__ import annotations

from edgekit.deployed import unusable
from edgekit.doctor.probe import Finding, Probe

_PROPERTIES = "--property=LoadState,ActiveState,SubState,Result,NRestarts,ExecMainStatus"


def releases(probe: Probe) -> Finding | None:
    """Check that the current release of each deployed service can run; None if nothing is deployed."""
    found = probe.releases()
    for release in found.values():
        fault = unusable(release)
        if fault is not None:
            return Finding("release", "fault", fault.reason, fault.cure)
    texts = [f"{release.name} of service '{name}'" for name, release in found.items()]
    return Finding("release", "ok", ", ".join(texts)) if texts else None


def service(probe: Probe) -> Finding:
    """Return the state of the system service `edgekit`, or of the user service if there is no system service."""
    for scope in ([], ["--user"]):
        done = probe.run("systemctl", *scope, "show", "edgekit", _PROPERTIES)
        if done is None or done.code:
            continue
        properties = dict(line.partition("=")[::2] for line in done.out.splitlines())
        if properties.get("LoadState") == "loaded":
            return _state(properties, "".join(f"{word} " for word in scope))
    return Finding("service", "ok", "none installed")


def _state(properties: dict[str, str], flag: str) -> Finding:
    active, restarts = properties.get("ActiveState", "unknown"), int(properties.get("NRestarts") or 0)
    text = f"{active} ({properties.get('SubState', '?')}), {restarts} restarts"
    log = f"{'' if flag else 'sudo '}journalctl {flag}-u edgekit -n 50"
    if active == "active":
        return Finding("service", "warning", text, log) if restarts else Finding("service", "ok", text)
    if active == "failed" or properties.get("SubState") == "auto-restart":
        reason = f"{properties.get('Result', '?')}, exit code {properties.get('ExecMainStatus', '?')}"
        return Finding("service", "fault", f"{text}: {reason}", log)
    return Finding("service", "warning", f"{text}: not running", f"systemctl {flag}start edgekit")
