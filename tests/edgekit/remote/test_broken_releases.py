"""A deployed release whose Python environment was deleted, or belongs to another Python after an upgrade."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.errors import EXIT_FAULT, EXIT_HOSTS, EXIT_OK
from tests.waiting import has_ended

from .commands import call, ssh_words
from .conftest import Sshd
from .release_board import OWN, SOURCE, Board, MakePackage, content, use_environment

Edgekit = Callable[..., subprocess.CompletedProcess[str]]
CURE = "deploy it again"


def delete(environment: Path) -> None:
    shutil.rmtree(environment)


def cut_link(environment: Path) -> None:
    """Let the environment's Python lead nowhere, as after the removal of the Python that made it."""
    (environment / "bin/python").unlink()
    (environment / "bin/python").symlink_to("/usr/bin/python2.6")


def upgrade(environment: Path) -> None:
    """Leave the environment with the packages of another Python, as after an upgrade of /usr/bin/python3."""
    (packages,) = (environment / "lib").iterdir()
    packages.rename(packages.with_name("python2.6"))


@pytest.fixture
def edgekit(sshd: Sshd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Edgekit:
    """Return a function that runs a command for the board; `deploy` sends an environment made by this test."""
    use_environment(tmp_path, monkeypatch)
    return lambda *words: call(*words, "--host", "127.0.0.1", *ssh_words(sshd))


def doctor(edgekit: Edgekit) -> dict[str, str]:
    """Return the status of each finding of the doctor on the board."""
    (found,) = json.loads(edgekit("doctor", "--json").stdout)["hosts"]
    return {finding["check"]: finding["status"] for finding in found["findings"]}


def service_status(board: Board) -> subprocess.CompletedProcess[str]:
    """Run `edgekit service status` on the board, with this machine's edgekit."""
    environment = {
        **os.environ,
        "HOME": str(board.home),
        "PYTHONPATH": str(SOURCE),
        "PATH": f"{board.systemd.folder}:{os.environ['PATH']}",
    }
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "edgekit.cli", "service", "status", "--user"]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [delete, cut_link, upgrade])
def test_all_commands_work_on_it_and_a_deploy_of_the_same_model_repairs_it(
    board: Board, edgekit: Edgekit, make: MakePackage, damage: Callable[[Path], None]
) -> None:
    (board.home / ".local/bin/edgekit").unlink()
    package = make(1)
    model, settings = (package.files[name].path for name in ("model.onnx", "edgekit.toml"))
    deploy = ("deploy", model, "--config", settings, "--settle", "0.2", "--user")
    first = json.loads(edgekit(*deploy, "--json").stdout)["boards"][0]["current"]
    assert doctor(edgekit)["release"] == "ok"
    damage(board.root / "current/env")
    board.systemd.systemctl("disable", "--now", "edgekit.service")

    found = doctor(edgekit)
    assert found["release"] == "fault"
    assert "fault" not in {found[library] for library in ("numpy", "onnxruntime", "opencv")}, found
    listed = edgekit("releases", "--user")
    assert listed.returncode == EXIT_OK
    assert (first in listed.stdout, CURE in listed.stdout) == (True, True), listed
    back = edgekit("rollback", "--to", first, "--user")
    assert (back.returncode, CURE in back.stderr) == (EXIT_HOSTS, True), back
    status = service_status(board)
    assert (status.returncode, CURE in status.stderr) == (EXIT_FAULT, True), status

    repaired = edgekit(*deploy, "--json")
    (change,) = json.loads(repaired.stdout)["boards"]
    assert (change["error"], change["before"], change["already_current"]) == (None, first, False)
    assert board.model_that_runs() == content(package)
    back = edgekit("rollback", "--user")
    assert (back.returncode, CURE in back.stderr) == (EXIT_HOSTS, True), back
    assert board.current == change["current"], "nothing was changed"
    pid = board.wait_until_it_runs()
    damage(board.root / "current/env")
    removed = edgekit("undeploy", "--user")
    assert removed.returncode == EXIT_OK, removed
    assert (board.root.exists(), board.unit.exists(), has_ended(pid)) == (False, False, True)
    assert "[Errno" not in "".join(done.stdout + done.stderr for done in (listed, back, status, repaired, removed))


@pytest.mark.slow
def test_an_edgekit_of_the_board_that_was_removed_is_named(board: Board, edgekit: Edgekit, make: MakePackage) -> None:
    package = make(1)
    model, settings = (package.files[name].path for name in ("model.onnx", "edgekit.toml"))
    words = ("deploy", model, "--config", settings, "--settle", "0.2", "--user", "--no-install")
    assert edgekit(*words).returncode == EXIT_OK
    own = board.home / ".local/bin/edgekit"
    own.unlink()
    listed = edgekit("releases", "--user")
    assert listed.returncode == EXIT_OK
    assert "install edgekit on the board again" in listed.stdout
    own.write_text(OWN)
    own.chmod(0o755)
    assert edgekit(*words).returncode == EXIT_OK, "the same release runs again"
    assert board.wait_until_it_runs()
