"""Removes everything that deploys have put on a board, over SSH; `board/deploy.py` makes the changes on the board."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.errors import HostError
from edgekit.remote.deploy import Service, plan_for, read_answer, run_on_board, shown
from edgekit.remote.parallel import HostReporter
from edgekit.remote.probe import probe
from edgekit.remote.ssh import Connection


@dataclass(frozen=True)
class Removal:
    """What was removed from a board: the service, the releases by name, and folders; `kept` are paths that stay."""

    service: bool = False
    releases: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


def undeploy_host(connection: Connection, service: Service, keep_data: bool, reporter: HostReporter) -> Removal:
    """Remove service, releases and folders from the board of an open connection.

    With `keep_data` the service's working folder and the settings of the current release stay.

    Raises:
        HostError: The service or a folder cannot be removed, or the connection was lost.
    """
    plan = {**plan_for("undeploy", service), "keep_data": keep_data}
    content = run_on_board(connection, probe(connection), plan, reporter)
    return read_removal(connection.host.label, content)


def read_removal(label: str, content: bytes) -> Removal:
    """Return what a board has removed, from what it printed.

    Raises:
        HostError: The output is not valid; `label` is the board's name in the message.
    """
    document = read_answer(label, content)
    try:
        names = [tuple(shown(name) or "" for name in document[key]) for key in ("releases", "folders", "kept")]
        return Removal(document["service"] is True, *names)
    except (KeyError, TypeError) as error:
        raise HostError(f"{label}: the board's response is not valid") from error
