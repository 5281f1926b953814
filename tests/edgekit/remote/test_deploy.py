"""Releases on a simulated board through a real sshd: a folder of this machine with a fake systemd."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from edgekit.errors import HostError
from edgekit.remote.board import service as board_service
from edgekit.remote.board.releases import Releases, Runtime
from edgekit.remote.deploy import ReleaseChange, Service, deploy_host, list_host, roll_out, rollback_host, undeploy_host
from edgekit.remote.parallel import INTERRUPTED
from edgekit.remote.payload import pack
from edgekit.remote.ssh import Connection
from tests.waiting import wait_until

from .commands import call
from .conftest import Sshd
from .release_board import SERVICE, SOURCE, Board, MakePackage, Quiet, content, deploy, use_environment


@pytest.fixture(autouse=True)
def soon_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit.remote.deploy.SETTLE_S", 0.2)


@pytest.mark.slow
def test_releases_replace_each_other_and_go_back(board: Board, connection: Connection, make: MakePackage) -> None:
    one, two = make(1), make(2)
    first = deploy(connection, one)
    assert (first.error, first.before) == (None, None)
    assert board.model_that_runs() == content(one)
    pid, unit = board.wait_until_it_runs(), board.unit.read_text()
    keeper = board.systemd.keeper("edgekit")
    second = deploy(connection, two)
    assert (second.error, second.before) == (None, first.release)
    assert board.model_that_runs() == content(two)
    assert board.wait_until_it_runs() != pid
    # The process that keeps the service and its unit are unchanged.
    assert (board.systemd.keeper("edgekit"), board.unit.read_text()) == (keeper, unit)
    assert (board.root / "data/results.jsonl").stat().st_size > 0

    back = rollback_host(connection, SERVICE, None, Quiet())
    assert (back.error, back.current) == (None, first.release)
    assert board.model_that_runs() == content(one)
    listed = list_host(connection, SERVICE, Quiet())
    assert [each.release for each in listed.releases] == [first.release, second.release]
    assert listed.releases[0].model == "it's; $(touch planted) 1.onnx"
    assert (listed.current, listed.cut, listed.service.state) == (first.release, False, "running")
    with pytest.raises(HostError, match="has no previous one: choose"):
        rollback_host(connection, SERVICE, None, Quiet())
    with pytest.raises(HostError, match=r"there is no release '\.\./\.\./x'"):
        rollback_host(connection, SERVICE, "../../x", Quiet())
    assert second.release is not None
    third = rollback_host(connection, SERVICE, second.release.partition("-")[2], Quiet())
    assert (third.current, third.already_current) == (second.release, False)
    assert rollback_host(connection, SERVICE, second.release, Quiet()).already_current
    assert not list(board.home.rglob("planted"))


@pytest.mark.slow
def test_a_repeated_deploy_changes_nothing(board: Board, connection: Connection, make: MakePackage) -> None:
    first, second = deploy(connection, make(1)), deploy(connection, make(2))
    pid = board.wait_until_it_runs()
    again = deploy(connection, make(2))
    assert (again.release, again.current, again.already_current) == (second.release, second.release, True)
    assert board.wait_until_it_runs() == pid
    assert [each.release for each in list_host(connection, SERVICE, Quiet()).releases] == [
        first.release,
        second.release,
    ]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: board.status()["ActiveState"] == "failed")
    assert deploy(connection, make(2)).already_current
    assert board.wait_until_it_runs() != pid
    other_settings = deploy(connection, make(2, source="missing.mp4"))
    assert (other_settings.already_current, other_settings.current) == (False, second.release)
    assert rollback_host(connection, SERVICE, None, Quiet()).current == first.release


def test_a_board_without_systemd_is_refused(board: Board, connection: Connection, make: MakePackage) -> None:
    (board.systemd.folder / "offline").touch()
    with pytest.raises(HostError, match="no systemd"):
        deploy(connection, make(1))
    assert not board.root.exists()


@pytest.mark.slow
def test_a_release_for_another_engine_takes_over_and_is_rolled_back(
    board: Board, connection: Connection, make: MakePackage, tiny_ncnn: Path
) -> None:
    one = make(1)
    first = deploy(connection, one)
    assert first.error is None
    files = {name: upload for name, upload in one.files.items() if name != "model.onnx"}
    two = replace(one, files={**files, "model.ncnn": pack(tiny_ncnn, "model")}, model_name=tiny_ncnn.name)
    second = deploy(connection, two)
    assert (second.error, second.before) == (None, first.release)
    assert board.model_that_runs() == tiny_ncnn.read_bytes()
    back = rollback_host(connection, SERVICE, None, Quiet())
    assert (back.error, back.current) == (None, first.release)
    assert board.model_that_runs() == content(one)


def test_a_model_that_does_not_load_changes_nothing(board: Board, connection: Connection, make: MakePackage) -> None:
    first = deploy(connection, make(1))
    before = board.wait_until_it_runs()
    with pytest.raises(HostError, match=r"model: .*Nothing was changed"):
        deploy(connection, make(2, content=b"no model"))
    assert (board.current, board.wait_until_it_runs()) == (first.release, before)
    assert [path.name for path in (board.root / "releases").iterdir()] == [first.release]


@pytest.mark.slow
def test_a_release_that_does_not_come_up_is_taken_back(board: Board, connection: Connection, make: MakePackage) -> None:
    good = make(1)
    first = deploy(connection, good)
    # The model and the settings are valid, but the source does not exist.
    second = deploy(connection, make(2, source="missing.mp4"))
    assert second.current == first.release
    assert second.error is not None
    assert "the run ended with exit code 2: source 'missing.mp4' does not exist" in second.error
    assert "runs again" in second.error
    assert board.model_that_runs() == content(good)
    listed = list_host(connection, SERVICE, Quiet())
    assert [each.failed for each in listed.releases] == [False, True]
    assert not listed.cut


@pytest.mark.slow
def test_a_first_release_that_does_not_come_up_leaves_no_service(
    board: Board, connection: Connection, make: MakePackage
) -> None:
    first = deploy(connection, make(1, source="missing.mp4"))
    assert first.error is not None
    assert "nothing runs, as before" in first.error
    assert board.status()["LoadState"] == "not-found"
    assert not (board.root / "current").is_symlink()
    assert deploy(connection, make(2)).error is None


@pytest.mark.slow
def test_old_releases_go_but_not_the_one_before(board: Board, connection: Connection, make: MakePackage) -> None:
    done = [deploy(connection, make(number, keep=2)).release for number in range(1, 4)]
    assert [each.release for each in list_host(connection, SERVICE, Quiet()).releases] == done[-2:]
    assert not list((board.root / "releases").glob(".*"))


def test_a_service_made_by_hand_is_left_alone(board: Board, connection: Connection, make: MakePackage) -> None:
    made = [sys.executable, "-m", "edgekit.cli", "service", "install", "--user", "--", "--source", "demo"]
    path = f"{board.systemd.folder}:{os.environ['PATH']}"
    environment = {**os.environ, "HOME": str(board.home), "PYTHONPATH": str(SOURCE), "PATH": path}
    subprocess.run(made, check=True, env=environment, cwd=board.home, capture_output=True)
    unit = board.unit.read_text()
    with pytest.raises(HostError, match="was not made by deploy"):
        deploy(connection, make(1))
    assert board.unit.read_text() == unit


@pytest.mark.slow
def test_a_service_of_the_other_scope_is_neither_added_nor_overlooked(
    board: Board, connection: Connection, make: MakePackage
) -> None:
    first = deploy(connection, make(1)).release
    system = Service("edgekit", "system")
    for change in (
        partial(deploy_host, connection, make(2), system, Quiet()),
        partial(rollback_host, connection, system, None, Quiet()),
        partial(list_host, connection, system, Quiet()),
        partial(undeploy_host, connection, system, False, Quiet()),
    ):
        with pytest.raises(HostError, match="was deployed with --user: repeat the command with --user"):
            change()
    assert board.current == first
    assert board.status()["LoadState"] == "loaded"


@pytest.mark.slow
def test_a_file_that_was_damaged_or_edited_on_the_board_is_sent_anew(
    board: Board, connection: Connection, make: MakePackage
) -> None:
    first = deploy(connection, make(1))
    settings = board.root / "current/edgekit.toml"
    with settings.open("a") as stream:
        stream.write("# edited on the board\n")
    (stored,) = (board.home / ".cache/edgekit/board/store").glob("*.toml")
    stored.write_text("# damaged")
    with pytest.raises(HostError, match=r"edgekit\.toml is damaged on the board's disk: deploy again"):
        deploy(connection, make(1))
    assert board.current == first.release
    second = deploy(connection, make(1))
    assert (second.error, second.before) == (None, first.release)
    assert "edited" not in settings.read_text()


@pytest.mark.slow
def test_an_environment_becomes_part_of_the_release(
    board: Board, connection: Connection, make: MakePackage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment, code = use_environment(tmp_path, monkeypatch)
    # The name of the distribution of version 0.1 was edgekit.
    (code / "edgekit-0.1.0.dist-info").mkdir()
    (code / "edgekit-0.1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: edgekit\nVersion: 0.1.0\n")
    first = deploy(connection, replace(make(1), install=True))
    assert first.error is None
    # The release has its own copies, so the files of the cache can be removed.
    shutil.rmtree(environment)
    shutil.rmtree(code)
    second = deploy(connection, make(2))
    assert second.error is None
    assert rollback_host(connection, SERVICE, None, Quiet()).error is None
    assert f'ExecStart=:"{board.root}/current/env/bin/python"' in board.unit.read_text()
    pid = board.wait_until_it_runs()
    assert f"PYTHONPATH={board.root / 'current/code'}".encode() in Path(f"/proc/{pid}/environ").read_bytes()


def test_a_rollout_stops_at_the_first_failure(sshd: Sshd) -> None:
    hosts = [sshd.host(label=str(number)) for number in range(5)]
    met: list[str] = []

    def work(connection: Connection) -> ReleaseChange:
        label = connection.host.label
        met.append(label)
        if label == "1":
            raise HostError(f"{label}: no luck")
        return ReleaseChange("r")

    done = list(roll_out(hosts, work, canary=1, parallel=2))
    assert sorted(met) == ["0", "1", "2"]
    assert [outcome.error and outcome.error[:7] for outcome in done] == [None, "no luck", None, "not tri", "not tri"]
    met.clear()
    list(roll_out(hosts[1:], work, canary=1, parallel=2))
    assert met == ["1"]
    met.clear()
    list(roll_out(hosts, work, canary=4, parallel=1))
    assert met == ["0", "1"]
    list(roll_out(hosts, work, canary=None, parallel=1))
    assert met[2:] == ["0", "1", "2", "3", "4"]


def test_ctrl_c_yields_the_boards_that_have_finished(sshd: Sshd) -> None:
    hosts = [sshd.host(label=label) for label in ("one", "two", "three")]
    one_finished = threading.Event()

    def work(connection: Connection) -> ReleaseChange:
        if connection.host.label == "two":
            one_finished.wait(60)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            connection.run(["sleep", "600"])
        return ReleaseChange("0002", current="0002")

    results = roll_out(hosts, work, canary=2, parallel=2, finished=lambda _: one_finished.set())
    found = [(done.host.label, done.error, done.interrupted) for done in results]
    assert found == [("one", None, True), ("two", INTERRUPTED, True)], "the next group is not begun"


def test_a_file_that_the_settings_name_must_be_on_the_board(tmp_path: Path) -> None:
    settings = tmp_path / "edgekit.toml"
    runtime = Runtime("/bin/true", tmp_path, tmp_path / "data")
    (tmp_path / "data").mkdir()

    def try_out(text: str) -> None:
        settings.write_text(text)
        (tmp_path / "model.onnx").touch()
        runtime.try_out(tmp_path, 10)

    missing = rf"settings: web-token-file: no readable file '{tmp_path}/data/token': copy it there"
    with pytest.raises(HostError, match=missing):
        try_out('web-token-file = "token"')
    (tmp_path / "data/token").write_text("t")
    for mark in ("", "\ufeff"):  # editors of Windows write a byte order mark
        with pytest.raises(ValueError, match="Expecting value"):  # /bin/true prints no summary of a run
            try_out(f'{mark}web-token-file = "token"')


@pytest.mark.parametrize(
    ("last", "fault"),
    [
        ({"state": "running", "pid": 8}, None),
        ({"state": "failed", "last_exit": "watchdog"}, "was ended (watchdog)"),
        ({"state": "stopped"}, "use a source without an end"),
    ],
    ids=["the new run works", "the new run fails", "the source of the new run ends"],
)
def test_while_the_old_run_ends_the_new_one_has_not_failed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, last: dict[str, Any], fault: str | None
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    releases, release = Releases("edgekit"), "0001-00000000"
    for folder in (releases.folder / release, releases.data):
        folder.mkdir(parents=True)
    # The edgekit of this release prints one status after the other, and in the end always the last one.
    statuses, own = tmp_path / "statuses", tmp_path / "program"
    ending = {"state": "stopped", "pid": 7}
    statuses.write_text("".join(f"{json.dumps(look)}\n" for look in ({"state": "running", "pid": 7}, *[ending] * 6)))
    own.write_text(
        f'#!/bin/sh\n[ "$2" = status ] || exit 0\nhead -n 1 "{statuses}" | grep . || echo \'{json.dumps(last)}\'\n'
        f'sed -i 1d "{statuses}"\n'
    )
    own.chmod(0o755)
    about = {"model": "m", "edgekit": "e", "created_unix_s": 0, "previous": None, "command": str(own), "files": {}}
    (releases.folder / release / "release.json").write_text(json.dumps(about))
    (releases.folder / release / "model.onnx").touch()
    found = board_service.Service(releases, "edgekit", "user", health_s=60, settle_s=0).restart_and_check(release)
    assert statuses.read_text() == ""
    assert (found is None) if fault is None else (fault in str(found))


@pytest.mark.slow
@pytest.mark.usefixtures("board")
def test_the_commands_speak_and_fail_with_their_codes(sshd: Sshd, make: MakePackage, tmp_path: Path) -> None:
    package = make(1)
    inventory = tmp_path / "boards.toml"
    inventory.write_text(
        f'[[host]]\nhost = "127.0.0.1"\nlabel = "good"\nport = {sshd.port}\n'
        '[[host]]\nhost = "127.0.0.1"\nlabel = "dead"\nport = 1\n'
        '[[host]]\nhost = "localhost"\nlabel = "late"\nport = 1\n'
    )
    options = ["--identity", str(sshd.host().identity), *(f"--ssh-option={each}" for each in sshd.options)]
    host = ["--host", "127.0.0.1", "--port", str(sshd.port), "--user", *options]
    model, config = (str(package.files[name].path) for name in ("model.onnx", "edgekit.toml"))

    settings = ["--config", config, "--settle", "0.2", "--no-install"]
    done = call(
        "deploy", model, *settings, "--inventory", str(inventory), "--user", *options, "--parallel", "1", "--json"
    )
    assert done.returncode == 4, done.stderr
    rows = json.loads(done.stdout)["boards"]
    assert [(row["host"], row["error"] is None, row["tried"]) for row in rows] == [
        ("good", True, True),
        ("dead", False, True),
        ("late", False, False),
    ]
    assert "late: not tried, because another board failed" in done.stderr
    assert "1 of 3 boards failed, 1 not tried: dead" in done.stderr
    listed = call("releases", *host)
    assert listed.returncode == 0, listed.stderr
    assert f"* {rows[0]['release']}" in listed.stdout
    back = call("rollback", *host)
    assert (back.returncode, back.stderr.count("has no previous one")) == (4, 1)
    model_part = rows[0]["release"].partition("-")[2]
    tables = inventory.read_text().split("\n[[host]]")
    (tmp_path / "dead_first.toml").write_text(f'[[host]]\nhost = "127.0.0.1"\nlabel = "dead"\nport = 1\n{tables[0]}\n')
    back = call(
        "rollback", "--to", model_part, "--inventory", str(tmp_path / "dead_first.toml"), "--user", *options, "--json"
    )
    assert (back.returncode, "1 of 2 boards failed: dead" in back.stderr) == (4, True), back.stderr
    good = json.loads(back.stdout)["boards"][1]
    assert (good["host"], good["current"], good["error"]) == ("good", rows[0]["release"], None)
    bad = call("deploy", model, "--config", str(inventory), *host)
    assert (bad.returncode, len(bad.stderr.splitlines())) == (2, 1)
    assert call("rollback", *host, "--name", "../x").returncode == 2
    assert call("deploy", model, *settings).returncode == 2
    cleaned = call("host", "clean", "--inventory", str(inventory), *options, "--json")
    assert cleaned.returncode == 4, cleaned.stderr
    document = json.loads(cleaned.stdout)
    assert (set(document["removed_kib"]), set(document["failed"])) == ({"good"}, {"dead", "late"})
