"""`edgekit run` as a service: started at boot, watched, and started again when it fails.

Where systemd runs it does the work, elsewhere a small supervisor of edgekit's own; `find_manager` returns the one that
this machine has, and both are used in the same way.
"""

from __future__ import annotations

from pathlib import Path

from edgekit.device.service.spec import Manager, Scope, ServiceSpec, ServiceStatus, State, check_name

__all__ = ["Manager", "Scope", "ServiceSpec", "ServiceStatus", "State", "check_name", "find_manager"]


def find_manager(scope: Scope) -> Manager:
    """Return what keeps services running on this machine.

    Raises:
        InputError: `scope` is "system" and the caller is not root.
    """
    # What sd_booted(3) looks at.
    if Path("/run/systemd/system").is_dir():
        from edgekit.device.service.systemd import SystemdManager

        return SystemdManager(scope)
    from edgekit.device.service.supervised import SupervisedManager

    return SupervisedManager(scope)
