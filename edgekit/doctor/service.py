"""The check of the systemd service."""

from __future__ import annotations

from edgekit.doctor.probe import Finding, Probe

_PROPERTIES = "--property=LoadState,ActiveState,SubState,Result,NRestarts,ExecMainStatus"


def service(probe: Probe) -> Finding:
    """Say how the service `edgekit` does, the system's or the user's, if there is one."""
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
    return Finding("service", "ok", "none installed")
