"""The check of the service, systemd's or one that edgekit's own supervisor keeps."""

from __future__ import annotations

import json
import os
from pathlib import Path

from edgekit.doctor.probe import Finding, Probe

_PROPERTIES = "--property=LoadState,ActiveState,SubState,Result,NRestarts,ExecMainStatus"


def service(probe: Probe) -> Finding:
    """Say how the service `edgekit` does, the machine's or the user's, if there is one."""
    for scope in ([], ["--user"]):
        done = probe.run("systemctl", *scope, "show", "edgekit", _PROPERTIES)
        if done is None or done.code:
            continue
        state = dict(line.partition("=")[::2] for line in done.out.splitlines())
        if state.get("LoadState") != "loaded":
            continue
        active, restarts = state.get("ActiveState", "unknown"), state.get("NRestarts", "0")
        said = f"{active} ({state.get('SubState', '?')}), {restarts} restarts"
        flag = "".join(f"{word} " for word in scope)
        log = f"{'' if scope else 'sudo '}journalctl {flag}-u edgekit -n 50"
        if active == "active":
            return Finding(
                "service", "warning" if int(restarts or 0) else "ok", said, log if int(restarts or 0) else None
            )
        if active == "failed" or state.get("SubState") == "auto-restart":
            reason = f"{state.get('Result', '?')}, exit code {state.get('ExecMainStatus', '?')}"
            return Finding("service", "fault", f"{said}: {reason}", log)
        return Finding("service", "warning", f"{said}: not running", f"systemctl {flag}start edgekit")
    return _supervised(probe) or Finding("service", "ok", "none installed")


def _supervised(probe: Probe) -> Finding | None:
    own = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state")
    for scope, base in (("--system", Path("/var/lib")), ("--user", own)):
        text = probe.read(str(base / "edgekit/services/edgekit/state.json").lstrip("/"))
        try:
            told = json.loads(text or "")
            state, restarts, last_exit = str(told["state"]), int(told["restarts"]), told["last_exit"]
            supervisor = int(told["supervisor"][0])
        except (ValueError, KeyError, TypeError, IndexError):
            continue
        said = f"{state}, {restarts} restarts, kept by edgekit's supervisor"
        if state != "stopped" and "edgekit.device.service" not in (probe.read(f"proc/{supervisor}/cmdline") or ""):
            return Finding("service", "fault", f"{said}, which is gone", f"edgekit service restart {scope}")
        log = f"edgekit service logs {scope}"
        if state in ("running", "starting"):
            return Finding("service", "warning" if restarts else "ok", said, log if restarts else None)
        if state == "stopped":
            return Finding("service", "warning", said, f"edgekit service restart {scope}")
        return Finding("service", "fault", f"{said}: {last_exit or 'no exit code'}", log)
    return None
