"""Removing a deployed service and its releases through a real sshd, on a simulated board with a fake systemd."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from edgekit.errors import HostError
from edgekit.remote.deploy import Removal, undeploy_host
from edgekit.remote.ssh import Connection
from tests.waiting import has_ended

from .commands import call
from .conftest import Sshd
from .release_board import SERVICE, Board, MakePackage, Quiet, deploy


@pytest.mark.slow
def test_service_releases_and_folders_are_removed(board: Board, connection: Connection, make: MakePackage) -> None:
    names = tuple(str(deploy(connection, make(number)).release) for number in (1, 2))
    pid = board.wait_until_it_runs()
    other = board.root.parent / "door"
    other.mkdir()
    removed = undeploy_host(connection, SERVICE, False, Quiet())
    assert removed == Removal(True, names, (str(board.root),), ())
    assert not Path(f"/proc/{pid}").exists()
    assert not board.unit.exists()
    assert list(board.root.parent.iterdir()) == [other], "another service's folder stays"
    other.rmdir()
    assert undeploy_host(connection, SERVICE, False, Quiet()) == Removal()
    assert deploy(connection, make(3)).error is None
    undeploy_host(connection, SERVICE, False, Quiet())
    assert not (board.home / ".local/share/edgekit").exists()


def test_a_service_that_systemd_does_not_stop_is_an_error_and_everything_stays(
    board: Board, connection: Connection, make: MakePackage
) -> None:
    deploy(connection, make(1))
    release, systemctl = board.current, board.systemd.folder / "systemctl"
    script = systemctl.read_text()
    refusal = 'case "$*" in *disable*) echo "no bus" >&2; exit 1 ;; esac'
    systemctl.write_text(script.replace("\n", f"\n{refusal}\n", 1))
    with pytest.raises(HostError, match="cannot be removed: systemctl disable: no bus"):
        undeploy_host(connection, SERVICE, False, Quiet())
    systemctl.write_text(script)
    assert board.current == release
    assert board.unit.exists()


@pytest.mark.slow
def test_a_deploy_in_progress_is_not_disturbed(board: Board, connection: Connection, make: MakePackage) -> None:
    deploy(connection, make(1))
    with (board.root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(HostError, match="another deploy, rollback or undeploy is running"):
            undeploy_host(connection, SERVICE, False, Quiet())
    assert board.unit.exists()


def test_a_damaged_release_is_removed_too(board: Board, connection: Connection, make: MakePackage) -> None:
    release = deploy(connection, make(1)).release
    pid = board.wait_until_it_runs()
    (board.root / "current/release.json").write_text('{"model": "cut o')
    shutil.rmtree(board.root / "data")
    removed = undeploy_host(connection, SERVICE, False, Quiet())
    assert removed == Removal(True, (str(release),), (str(board.root),), ())
    assert (board.root.exists(), board.unit.exists(), has_ended(pid)) == (False, False, True)


@pytest.mark.slow
def test_the_command_prints_what_it_removed_and_fails_with_its_code(
    board: Board, connection: Connection, sshd: Sshd, make: MakePackage, tmp_path: Path
) -> None:
    release = deploy(connection, make(1)).release
    inventory = tmp_path / "boards.toml"
    inventory.write_text(
        '[[host]]\nhost = "127.0.0.1"\nlabel = "dead"\nport = 1\n'
        f'[[host]]\nhost = "127.0.0.1"\nlabel = "good"\nport = {sshd.port}\n'
    )
    options = ["--identity", str(sshd.host().identity), *(f"--ssh-option={each}" for each in sshd.options), "--user"]

    def undeploy(*words: str) -> subprocess.CompletedProcess[str]:
        return call("undeploy", *words, *options)

    done = undeploy("--inventory", str(inventory), "--keep-data", "--json")
    assert done.returncode == 4, done.stderr
    document = json.loads(done.stdout)
    data, settings = str(board.root / "data"), str(board.root / "edgekit.toml")
    assert document["boards"] == [
        {"host": "good", "service": True, "releases": [release], "folders": [str(board.root / "releases")],
         "kept": [data, settings]}
    ]  # fmt: skip
    assert set(document["failed"]) == {"dead"}
    host = ["--host", "127.0.0.1", "--port", str(sshd.port)]
    again = undeploy(*host)
    assert (again.returncode, again.stdout) == (0, f"127.0.0.1: removed {board.root}\n")
    assert undeploy(*host).stdout == "127.0.0.1: nothing was deployed as service 'edgekit'\n"
    assert undeploy(*host, "--name", "../x").returncode == 2
