"""`edgekit run` as a systemd service: started at boot, monitored by a watchdog, restarted after a failure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.device.service.spec import Scope, ServiceSpec, ServiceStatus, State, check_name

if TYPE_CHECKING:
    from edgekit.device.service.systemd import SystemdManager

__all__ = ["Scope", "ServiceSpec", "ServiceStatus", "State", "check_name", "find_manager"]


def find_manager(scope: Scope) -> SystemdManager:
    """Return the service manager of this machine.

    Raises:
        InputError: This machine does not run systemd.
    """
    from edgekit.boards import systemd_is_running
    from edgekit.device.service.systemd import SystemdManager
    from edgekit.errors import InputError

    if not systemd_is_running():
        raise InputError(
            "this machine does not run systemd, so edgekit cannot manage a service here: `edgekit run` works in the "
            "foreground under any service manager; to start it at boot, add '@reboot edgekit run ...' to 'crontab -e'"
        )
    return SystemdManager(scope)
