"""Interrupted deploys: a lost connection, SIGKILL at any moment, and the order of disk writes for power cuts."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial

import pytest

from edgekit.errors import HostError
from edgekit.remote.deploy import deploy_host, list_host
from edgekit.remote.program import program
from edgekit.remote.ssh import Connection
from tests.waiting import has_ended, wait_until

from .conftest import Sshd, cut
from .release_board import SERVICE, Board, MakePackage, Quiet, board_plan, content, deploy


def board_environment(board: Board) -> dict[str, str]:
    """Return the environment of a deploy on the board."""
    changed = {"HOME": str(board.home), "PATH": f"{board.systemd.folder}:{os.environ['PATH']}"}
    environment = {**os.environ, **changed}
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        environment.pop(name, None)
    return environment


@pytest.mark.slow
def test_a_lost_connection_leaves_the_board_to_complete_what_it_began(
    sshd: Sshd, board: Board, connection: Connection, make: MakePackage
) -> None:
    deploy(connection, make(1))
    failing = make(2, source="missing.mp4")
    with Connection(sshd.host()) as lost, pytest.raises(HostError, match="completes what it has begun"):
        deploy_host(lost, failing, SERVICE, Quiet(lambda line: line.startswith("switched to") and cut(lost)))
    wait_until(lambda: not (board.root / "pending").exists())
    assert board.model_that_runs() == content(make(1))
    assert not list_host(connection, SERVICE, Quiet()).cut


def test_a_connection_lost_before_the_switch_is_reported_as_no_change(
    sshd: Sshd, board: Board, connection: Connection, make: MakePackage
) -> None:
    first = deploy(connection, make(1))
    with Connection(sshd.host()) as lost, pytest.raises(HostError, match="were not changed"):
        # The first message describes the board, before anything is sent.
        deploy_host(lost, make(2), SERVICE, Quiet(lambda _: cut(lost)))
    assert board.current == first.release


@pytest.mark.slow
@pytest.mark.parametrize("everything", [False, True], ids=["the deploy", "the service too"])
def test_sigkill_at_any_moment_leaves_a_release_that_runs(
    board: Board, connection: Connection, make: MakePackage, everything: bool
) -> None:
    """Five deploys per parameter are killed at random moments within the duration of a whole deploy."""
    deploy(connection, make(1))
    drawn = random.Random(7)  # noqa: S311 - moments, no secrets
    environment = board_environment(board)
    whole_s = 0.0
    good = {content(make(1))}
    for turn in range(6):
        package = make(2 + turn)
        files = {name: upload.path for name, upload in package.files.items()}
        plan = board_plan(board, package, files)
        started_s = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, *program("deploy", plan)],
            env=environment,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        good.add(content(package))
        if turn == 0:
            assert process.wait(60) == 0
            whole_s = time.monotonic() - started_s
            continue
        time.sleep(drawn.uniform(0, whole_s))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if everything:
            # First stop the keeper of the fake systemd, so that it does not handle the end of its child.
            keeper = board.systemd.keeper("edgekit")
            os.kill(keeper, signal.SIGSTOP)
            for pid in (keeper, int(board.status()["MainPID"])):
                if pid:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                    wait_until(partial(has_ended, pid))
            # Start the service as at the next boot.
            board.systemd.systemctl("start", "edgekit.service")
        assert board.model_that_runs() in good
        assert (board.root / "current/model.onnx").read_bytes() in good
    after = deploy(connection, make(50))
    assert after.error is None
    assert board.model_that_runs() == content(make(50))
    assert not (board.root / "pending").exists()
    assert not list((board.root / "releases").glob(".*"))
