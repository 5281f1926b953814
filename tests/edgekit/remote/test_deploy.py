"""Releases on a board through the real sshd: the board is a folder of this machine, its service the supervisor's."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import edgekit
from edgekit.device.service.folder import read_progress, read_spec, runs
from edgekit.device.service.spec import ServiceStatus
from edgekit.device.service.supervised import SupervisedManager
from edgekit.errors import HostError
from edgekit.remote import board_release
from edgekit.remote import deploy as deploying
from edgekit.remote.deploy import Outcome, Package, Service, deploy_host, list_host, on_hosts, rollback_host
from edgekit.remote.hosts import Host
from edgekit.remote.prepare import Ready
from edgekit.remote.ssh import Connection
from edgekit.remote.transfer import pack
from tests.waiting import wait_until

from .conftest import Sshd

if Path("/run/systemd/system").exists():
    pytest.skip("systemd runs here and would keep the services", allow_module_level=True)

SOURCE = Path(edgekit.__file__).parents[1]
OWN = f'#!/bin/sh\nexec env PYTHONPATH="{SOURCE}" "{sys.executable}" -m edgekit.cli "$@"\n'
SERVICE = Service("edgekit", "user")
PATIENCE_S = 60


class Quiet:
    """Hears and forgets, but calls `on_line` with each line."""

    def __init__(self, on_line: Callable[[str], None] = lambda _: None) -> None:
        self.on_line = on_line

    def say(self, host: Host, text: str) -> None:
        del host
        self.on_line(text)

    def progress(self, host: Host, what: str, done: float, total: float) -> None:
        pass


@dataclass
class Board:
    """The board's side: its home, and what runs on it."""

    home: Path
    manager: SupervisedManager

    @property
    def root(self) -> Path:
        return self.home / ".local/share/edgekit/deploy/edgekit"

    @property
    def services(self) -> Path:
        return self.home / ".local/state/edgekit/services/edgekit"

    @property
    def current(self) -> str:
        return (self.root / "current").readlink().name

    def status(self) -> ServiceStatus:
        return self.manager.status("edgekit")

    def wait_until_it_runs(self) -> ServiceStatus:
        end_s = time.monotonic() + PATIENCE_S
        while (found := self.status()).state != "running" or found.pid is None:
            assert time.monotonic() < end_s, (found, (self.services / "log").read_text())
            time.sleep(0.05)
        return found

    def model_that_runs(self) -> bytes:
        """Return the model that the running process was started with, by its own words and the link."""
        pid = self.wait_until_it_runs().pid
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return Path(os.fsdecode(words[words.index(b"--model") + 1])).read_bytes()


@pytest.fixture
def board(sshd: Sshd) -> Iterator[Board]:
    own = sshd.home / ".local/bin/edgekit"
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text(OWN)
    own.chmod(0o755)
    here = Board(sshd.home, SupervisedManager("user", sshd.home / ".local/state/edgekit/services"))
    yield here
    if (here.services / "service.json").exists():
        here.manager.remove("edgekit")
    for folder in (here.root.parent, own.parent, sshd.home / ".cache"):
        shutil.rmtree(folder, ignore_errors=True)


def gone(process: tuple[int, int]) -> bool:
    return not runs(process)


MakePackage = Callable[..., Package]


@pytest.fixture
def make(tmp_path: Path, tiny_model: Path, play: Callable[..., Any]) -> MakePackage:
    """Return a package whose model has a hash of its own, and that finds its faces in a real stream."""
    url = play([("pictures", 1_000_000, (64, 48))]).url

    def make(number: int = 1, source: str = url, keep: int = 3, content: bytes | None = None) -> Package:
        import onnx

        model = onnx.load(tiny_model)
        model.doc_string = f"number {number}"
        path = tmp_path / f"it's; $(touch planted) {number}.onnx"
        path.write_bytes(model.SerializeToString() if content is None else content)
        config = tmp_path / f"{number}.toml"
        config.write_text(f'source = {json.dumps(source)}\ndetector = "none"\njsonl = "results.jsonl"\n')
        parcels = {"model.onnx": pack(path, "model"), "edgekit.toml": pack(config, "settings")}
        return Package(parcels, path.name, keep, install=False, settle_s=0.2)

    return make


def deploy(connection: Connection, package: Package) -> Outcome:
    return deploy_host(connection, package, SERVICE, Quiet())


def content(package: Package) -> bytes:
    return package.files["model.onnx"].path.read_bytes()


def test_releases_replace_each_other_and_go_back(board: Board, connection: Connection, make: MakePackage) -> None:
    one, two = make(1), make(2)
    first = deploy(connection, one)
    assert (first.error, first.before) == (None, None)
    assert board.model_that_runs() == content(one)
    pid = board.status().pid
    supervisor = read_progress(board.services)
    second = deploy(connection, two)
    assert (second.error, second.before) == (None, first.release)
    assert board.model_that_runs() == content(two)
    assert board.status().pid != pid
    # The service's keeper never ended: nothing but one signal lies between the two.
    after = read_progress(board.services)
    assert supervisor is not None
    assert after is not None
    assert after.supervisor == supervisor.supervisor
    assert (board.root / "data/results.jsonl").stat().st_size > 0

    back = rollback_host(connection, SERVICE, None, Quiet(), settle_s=0.2)
    assert (back.error, back.current) == (None, first.release)
    assert board.model_that_runs() == content(one)
    listed = list_host(connection, SERVICE, Quiet())
    assert [each.release for each in listed.releases] == [first.release, second.release]
    assert listed.releases[0].model == "it's; $(touch planted) 1.onnx"
    assert (listed.current, listed.cut, listed.service["state"]) == (first.release, False, "running")
    with pytest.raises(HostError, match="no release before"):
        rollback_host(connection, SERVICE, None, Quiet())
    with pytest.raises(HostError, match=r"there is no release '\.\./\.\./x'"):
        rollback_host(connection, SERVICE, "../../x", Quiet())
    third = rollback_host(connection, SERVICE, second.release, Quiet(), settle_s=0.2)
    assert third.current == second.release
    assert not list(board.home.rglob("planted"))


@pytest.mark.parametrize("content", [b"no model", b""], ids=["rubbish", "empty"])
def test_a_model_that_does_not_load_changes_nothing(
    board: Board, connection: Connection, make: MakePackage, content: bytes
) -> None:
    first = deploy(connection, make(1))
    before = board.wait_until_it_runs()
    with pytest.raises(HostError, match=r"model: .*Nothing was changed"):
        deploy(connection, make(2, content=content))
    assert (board.current, board.status().pid) == (first.release, before.pid)
    assert [path.name for path in (board.root / "releases").iterdir()] == [first.release]


def test_a_release_that_does_not_come_up_is_taken_back(board: Board, connection: Connection, make: MakePackage) -> None:
    good = make(1)
    first = deploy(connection, good)
    # Its model and settings are fine; its camera is not there.
    second = deploy(connection, make(2, source="missing.mp4"))
    assert second.current == first.release
    assert second.error is not None
    assert "source 'missing.mp4' does not exist" in second.error
    assert "runs again" in second.error
    assert board.model_that_runs() == content(good)
    listed = list_host(connection, SERVICE, Quiet())
    assert [each.failed for each in listed.releases] == [False, True]
    assert not listed.cut


def test_a_first_release_that_does_not_come_up_leaves_no_service(
    board: Board, connection: Connection, make: MakePackage
) -> None:
    first = deploy(connection, make(1, source="missing.mp4"))
    assert first.error is not None
    assert "nothing runs, as before" in first.error
    assert board.status().state == "not installed"
    assert not (board.root / "current").is_symlink()
    assert deploy(connection, make(2)).error is None


def test_old_releases_go_but_not_the_one_before(board: Board, connection: Connection, make: MakePackage) -> None:
    done = [deploy(connection, make(number, keep=2)).release for number in range(1, 5)]
    assert [each.release for each in list_host(connection, SERVICE, Quiet()).releases] == done[-2:]
    assert not list((board.root / "releases").glob(".*"))


def test_a_service_made_by_hand_is_left_alone(board: Board, connection: Connection, make: MakePackage) -> None:
    made = [sys.executable, "-m", "edgekit.cli", "service", "install", "--user", "--", "--source", "demo"]
    environment = {**os.environ, "HOME": str(board.home), "PYTHONPATH": str(SOURCE)}
    subprocess.run(made, check=True, env=environment, cwd=board.home, capture_output=True)
    spec = read_spec(board.services)
    with pytest.raises(HostError, match="was not made by deploy"):
        deploy(connection, make(1))
    assert read_spec(board.services) == spec


def test_a_board_without_room_is_refused_before_anything_is_sent(
    board: Board, connection: Connection, make: MakePackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = deploying.probe
    monkeypatch.setattr(deploying, "probe", lambda connection: replace(real(connection), free_bytes=1 << 20))
    with pytest.raises(HostError, match="1 MiB of its disk are free"):
        deploy(connection, make(1))
    assert not board.root.exists()
    assert not (board.home / ".cache/edgekit").exists()


def test_a_file_that_changed_in_the_boards_store_is_refused_once_and_sent_anew(
    board: Board, connection: Connection, make: MakePackage
) -> None:
    first = deploy(connection, make(1))
    # An editor that writes in place changes the store's file with the release's.
    settings = board.root / "current/edgekit.toml"
    with settings.open("a") as stream:
        stream.write("# edited on the board\n")
    with pytest.raises(HostError, match=r"edgekit\.toml is damaged on the board's disk: deploy again"):
        deploy(connection, make(1))
    assert board.current == first.release
    second = deploy(connection, make(1))
    assert (second.error, second.before) == (None, first.release)
    assert "edited" not in settings.read_text()


def test_an_environment_becomes_part_of_the_release(
    board: Board, connection: Connection, make: MakePackage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment, code = tmp_path / "envs/e", tmp_path / "code/c"
    venv.EnvBuilder(symlinks=True).create(environment)
    site = environment / "lib" / "python{}.{}".format(*sys.version_info[:2]) / "site-packages"
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "packages.pth").write_text(f"{packages}\n")
    shutil.copytree(SOURCE / "edgekit", code / "edgekit", ignore=shutil.ignore_patterns("__pycache__"))
    (environment / ".ready").write_text("")
    ready = Ready(
        ("env", f"PYTHONPATH={code}", f"{environment}/bin/python", "-m", "edgekit.cli"), f"{environment}/.ready"
    )
    monkeypatch.setattr(deploying, "prepare", lambda *_, **__: ready)
    first = deploy(connection, replace(make(1), install=True))
    assert first.error is None
    # What the cache had may go; what runs is the release's own.
    shutil.rmtree(environment)
    shutil.rmtree(code)
    second = deploy(connection, make(2))
    assert second.error is None
    assert rollback_host(connection, SERVICE, None, Quiet(), settle_s=0.2).error is None
    assert read_spec(board.services).command[0] == str(board.root / "current/env/bin/python")
    pid = board.wait_until_it_runs().pid
    assert f"PYTHONPATH={board.root / 'current/code'}".encode() in Path(f"/proc/{pid}/environ").read_bytes()


def test_a_lost_connection_leaves_the_board_to_complete_what_it_began(
    sshd: Sshd, board: Board, connection: Connection, make: MakePackage
) -> None:
    deploy(connection, make(1))
    ill = make(2, source="missing.mp4")
    cut = Connection(sshd.host())

    def cut_at(line: str) -> None:
        if line.startswith("switched to") and cut._master is not None:
            cut._master.kill()

    with cut, pytest.raises(HostError, match="completes what it began"):
        deploy_host(cut, ill, SERVICE, Quiet(cut_at))
    wait_until(lambda: not (board.root / "pending").exists())
    assert board.model_that_runs() == content(make(1))
    assert not list_host(connection, SERVICE, Quiet()).cut


@pytest.mark.parametrize("everything", [False, True], ids=["the deploy", "the service too"])
def test_sigkill_at_any_moment_leaves_a_release_that_runs(
    board: Board, connection: Connection, make: MakePackage, everything: bool
) -> None:
    """Five moments each, spread over what a whole deploy takes; ten in all."""
    deploy(connection, make(1))
    release = Path(f"{board.root}.script.py")
    release.write_text(files("edgekit.remote").joinpath("board_release.py").read_text())
    drawn = random.Random(7)  # noqa: S311 - moments, no secrets
    environment = {**os.environ, "HOME": str(board.home)}
    environment.pop("XDG_DATA_HOME", None)
    environment.pop("XDG_STATE_HOME", None)
    whole_s = 0.0
    good = {content(make(1))}
    for turn in range(6):
        package = make(2 + turn)
        plan = {
            "action": "deploy", "name": "edgekit", "scope": "user", "health_s": 60, "trial_s": 60, "settle_s": 0.2,
            "keep": 3, "environment": None, "code": None, "command": str(board.home / ".local/bin/edgekit"),
            "about": {"model": "m", "edgekit": "e"},
            "files": {name: [str(parcel.path), parcel.sha256] for name, parcel in package.files.items()},
        }  # fmt: skip
        started_s = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-I", str(release), json.dumps(plan)],
            env=environment,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        good.add(content(package))
        if turn == 0:
            assert process.wait(PATIENCE_S) == 0
            whole_s = time.monotonic() - started_s
            continue
        time.sleep(drawn.uniform(0, whole_s))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if everything:
            progress = read_progress(board.services)
            assert progress is not None
            for one in (progress.supervisor, progress.child):
                if one is not None:
                    with suppress(ProcessLookupError):
                        os.kill(one[0], signal.SIGKILL)
                    wait_until(partial(gone, one))
            # As the line for crontab does at the next boot.
            keeper = [sys.executable, "-P", "-m", "edgekit.device.service", str(board.services)]
            again = {**environment, "PYTHONPATH": str(SOURCE)}
            subprocess.run(["setsid", "--fork", *keeper], env=again, check=True, stderr=subprocess.DEVNULL)
        assert board.model_that_runs() in good
        assert (board.root / "current/model.onnx").read_bytes() in good
    after = deploy(connection, make(50))
    assert after.error is None
    assert board.model_that_runs() == content(make(50))
    assert not (board.root / "pending").exists()
    assert not list((board.root / "releases").glob(".*"))


def test_a_rollout_stops_at_the_first_failure(sshd: Sshd) -> None:
    hosts = [sshd.host(label=str(number)) for number in range(5)]
    met: list[str] = []

    def work(connection: Connection) -> Outcome:
        label = connection.host.label
        met.append(label)
        if label == "1":
            raise HostError(f"{label}: no luck")
        return Outcome(connection.host, "r")

    done = list(on_hosts(hosts, work, canary=1, parallel=2))
    assert sorted(met) == ["0", "1", "2"]
    assert [outcome.error and outcome.error[:7] for outcome in done] == [None, "no luck", None, "not tri", "not tri"]
    met.clear()
    list(on_hosts(hosts[1:], work, canary=1, parallel=2))
    assert met == ["1"]


def test_a_service_that_takes_long_to_end_is_not_ill(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What systemd says between SIGTERM and the old process's end: deactivating, with its pid."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(board_release, "_POLL_S", 0)
    plan = {"name": "edgekit", "scope": "system", "health_s": 60, "settle_s": 0}
    ending, gone = {"state": "stopped", "pid": 7}, {"state": "stopped", "pid": None, "last_exit": "exit code 1"}
    up = {"state": "running", "pid": 8}

    def judged(*looks: dict[str, Any]) -> str | None:
        releases = board_release.Releases(plan)
        left = iter(looks)
        monkeypatch.setattr(releases, "status", lambda _: next(left))
        monkeypatch.setattr(releases, "_why", lambda _, what: what)
        return releases._judge("0001-00000000", 7)

    assert judged(*[ending] * 20, gone, up) is None
    assert judged(*[ending] * 20, *[gone] * 4) == "stopped, exit code 1"


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

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "edgekit.cli", *words]
        environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)

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
    listed = call("releases", *host)
    assert listed.returncode == 0, listed.stderr
    assert f"* {rows[0]['release']}" in listed.stdout
    back = call("rollback", *host)
    assert (back.returncode, "no release before" in back.stderr) == (4, True)
    bad = call("deploy", model, "--config", str(inventory), *host)
    assert (bad.returncode, len(bad.stderr.splitlines())) == (2, 1)
    assert call("rollback", *host, "--name", "../x").returncode == 2
    assert call("deploy", model, *settings).returncode == 2
    cleaned = call("host", "clean", "--inventory", str(inventory), *options, "--json")
    assert cleaned.returncode == 4, cleaned.stderr
    told = json.loads(cleaned.stdout)
    assert (set(told["removed_kib"]), set(told["failed"])) == ({"good"}, {"dead", "late"})
