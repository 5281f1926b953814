"""The supervisor against real processes that end, crash, freeze and are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from edgekit.device.procfs import read_process, start_ticks
from edgekit.device.service.folder import Progress, read_progress, read_spec, runs, write_spec
from edgekit.device.service.rotating import RotatingLog
from edgekit.device.service.spec import RestartPolicy, ServiceSpec
from edgekit.device.service.supervised import SupervisedManager
from edgekit.errors import InputError

PATIENCE_S = 30

# Says READY and, every 50 ms, that it is alive; ends with SIGTERM as `edgekit run` does.
ALIVE = """
import os, signal, socket, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
to = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
print("hello", flush=True)
while True:
    to.sendto(b"READY=1\\nWATCHDOG=1\\nSTATUS=fine", os.environ["NOTIFY_SOCKET"])
    time.sleep(0.05)
"""
# The same, but it goes quiet after the first time.
FREEZES = ALIVE.replace("time.sleep(0.05)", "time.sleep(1000)")
QUICK = RestartPolicy(first_pause_s=0.05, longest_pause_s=0.05)

Start = Callable[..., subprocess.Popen[bytes]]


def script(folder: Path, code: str) -> tuple[str, ...]:
    (folder / "child.py").write_text(code)
    return sys.executable, str(folder / "child.py")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "state of a service"
    path.mkdir()
    return path


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Start a supervisor of `code`, in a process of its own as always."""
    with ExitStack() as stack:

        def start(code: str, restart: RestartPolicy = QUICK, **timeouts: float) -> subprocess.Popen[bytes]:
            command = code if isinstance(code, tuple) else script(folder, code)
            write_spec(folder, ServiceSpec("test", command, folder, restart=restart))
            return again(**timeouts)

        def again(**timeouts: float) -> subprocess.Popen[bytes]:
            program = (
                "import sys; from pathlib import Path\n"
                "from edgekit.device.service.supervisor import Supervisor, Timeouts\n"
                f"sys.exit(Supervisor(Path({str(folder)!r}), Timeouts(**{timeouts!r})).run())"
            )
            running = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE)
            stack.enter_context(running)
            stack.callback(running.wait)
            stack.callback(running.terminate)
            return running

        start.again = again
        yield start


def wait_for(folder: Path, condition: Callable[[Progress], bool]) -> Progress:
    end_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < end_s:
        progress = read_progress(folder)
        if progress is not None and condition(progress):
            return progress
        time.sleep(0.01)
    pytest.fail(f"waited too long: {read_progress(folder)}; {log(folder)}")


def log(folder: Path) -> str:
    return (folder / "log").read_text() if (folder / "log").exists() else ""


def running(progress: Progress) -> bool:
    return progress.state == "running"


def test_a_killed_child_is_started_again_and_sigterm_stops_both(folder, start):
    supervisor = start(ALIVE)
    first = wait_for(folder, running)
    assert first.text == "fine"
    os.kill(first.child[0], signal.SIGKILL)
    second = wait_for(folder, lambda progress: running(progress) and progress.restarts == 1)
    assert second.child != first.child
    assert second.last_exit == "signal 9"
    supervisor.terminate()
    assert supervisor.wait(PATIENCE_S) == 0
    assert not runs(second.child)
    last = read_progress(folder)
    assert (last.state, last.last_exit, last.child) == ("stopped", "exit code 0", None)
    assert log(folder).count("hello\n") == 2


def test_sigusr1_starts_the_child_anew_without_a_pause_also_while_it_waits(folder, start):
    supervisor = start(ALIVE, RestartPolicy(first_pause_s=1000, longest_pause_s=1000))
    first = wait_for(folder, running)
    supervisor.send_signal(signal.SIGUSR1)
    second = wait_for(folder, lambda progress: running(progress) and progress.child not in (None, first.child))
    assert not runs(first.child)
    os.kill(second.child[0], signal.SIGKILL)
    wait_for(folder, lambda progress: progress.state == "waiting to restart")
    supervisor.send_signal(signal.SIGUSR1)
    third = wait_for(folder, running)
    assert (third.restarts, third.supervisor) == (0, first.supervisor)


def test_a_child_that_gives_no_sign_of_life_is_ended_and_started_again(folder, start):
    start(FREEZES, watchdog_s=0.5)
    frozen = wait_for(folder, running)
    restarted = wait_for(folder, lambda progress: progress.restarts > 0 and running(progress))
    assert restarted.last_exit == "watchdog"
    assert not runs(frozen.child)
    assert "no finished frame for 0.5 s" in log(folder)


def test_a_child_that_heeds_no_signal_is_killed(folder, start):
    deaf = FREEZES.replace("lambda *_: sys.exit(0)", "signal.SIG_IGN").replace(
        "to =", "signal.signal(signal.SIGABRT, signal.SIG_IGN); to ="
    )
    start(deaf, watchdog_s=0.3, stop_s=0.3)
    frozen = wait_for(folder, running)
    wait_for(folder, lambda progress: progress.restarts > 0)
    assert not runs(frozen.child)


def test_a_child_that_never_gets_ready_is_a_start_that_failed(folder, start):
    start("import time; time.sleep(1000)", start_s=0.3)
    assert wait_for(folder, lambda progress: progress.restarts > 0).last_exit == "start timeout"


@pytest.mark.parametrize(
    ("code", "exit_code", "state"), [("raise SystemExit(2)", 2, "failed"), ("raise SystemExit(0)", 0, "stopped")]
)
def test_bad_settings_and_work_that_is_done_are_not_started_again(folder, start, code, exit_code, state):
    assert start(code).wait(PATIENCE_S) == exit_code
    progress = read_progress(folder)
    assert (progress.state, progress.restarts, progress.last_exit) == (state, 0, f"exit code {exit_code}")
    assert log(folder).count("started, pid") == 1


def test_too_many_failures_in_a_row_are_given_up(folder, start):
    policy = RestartPolicy(first_pause_s=0.01, longest_pause_s=0.01, burst=3, window_s=60)
    assert start("raise SystemExit(75)", restart=policy).wait(PATIENCE_S) == 1
    assert read_progress(folder).state == "failed"
    assert log(folder).count("started, pid") == 3
    assert "3 starts in 60 s: given up" in log(folder)


def test_a_program_that_is_not_there_is_said_and_tried_again(folder, start):
    start(("/no/such/program",))
    wait_for(folder, lambda progress: progress.restarts > 1)
    assert "'/no/such/program' cannot be started: No such file" in log(folder)


def test_a_user_who_was_deleted_is_said_and_tried_again(folder, start):
    write_spec(folder, ServiceSpec("test", ("/bin/true",), folder, run_as="nobody-of-that-name", restart=QUICK))
    start.again()
    wait_for(folder, lambda progress: progress.restarts >= 1)
    assert "'/bin/true' cannot be started: user 'nobody-of-that-name' does not exist" in log(folder)


def test_a_second_supervisor_is_refused(folder, start):
    start(ALIVE)
    first = wait_for(folder, running)
    second = start.again()
    assert second.wait(PATIENCE_S) != 0
    assert b"already running" in second.stderr.read()
    assert runs(first.child)
    assert log(folder).count("started, pid") == 1


def test_what_a_killed_supervisor_left_behind_is_ended_before_the_next_start(folder, start):
    supervisor = start(ALIVE)
    orphan = wait_for(folder, running)
    supervisor.kill()
    supervisor.wait()
    assert runs(orphan.child), "the child outlives its supervisor"
    start.again()
    second = wait_for(folder, lambda progress: running(progress) and progress.child != orphan.child)
    assert not runs(orphan.child)
    assert runs(second.child)


def test_a_number_that_was_given_to_another_process_is_not_taken_for_the_old_one():
    pid = os.getpid()
    assert runs((pid, start_ticks(pid)))
    assert not runs((pid, start_ticks(pid) - 2 * os.sysconf("SC_CLK_TCK")))
    assert not runs(None)
    child = subprocess.Popen(["true"])
    time.sleep(0.1)
    assert start_ticks(child.pid) is None, "a zombie does not run"
    assert read_process(child.pid) is None
    child.wait()


def test_the_specification_survives_its_file(folder):
    spec = ServiceSpec("x", ("a", "b c"), folder, (folder,), {"A": "1"}, "daemon", QUICK)
    write_spec(folder, spec)
    assert read_spec(folder) == spec
    assert (folder / "service.json").stat().st_mode & 0o077 == 0
    (folder / "service.json").write_text(json.dumps({"name": "x"}))
    with pytest.raises(InputError, match="describes no service"):
        read_spec(folder)


def test_a_log_keeps_to_its_size_and_its_lines_whole(tmp_path):
    log = RotatingLog(tmp_path / "log", max_bytes=1000, kept_files=2)
    for number in range(200):
        log.feed(f"line {number}\nbegun ".encode())
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files] == ["log", "log.1", "log.2"]
    assert all(0 < path.stat().st_size <= 1000 for path in files)
    assert (tmp_path / "log").read_text().splitlines()[-1].endswith("begun line 199")
    log.feed(b"\x1b[2J\x07")
    log.flush()
    assert "\x1b" not in (tmp_path / "log").read_text()
    log.feed(b"x" * 200_000)
    assert len(log._rest) < 100_000


def test_a_full_disk_loses_lines_of_the_log_and_nothing_else(small_disk):
    log = RotatingLog(small_disk / "log", max_bytes=10_000_000)
    for _ in range(40):
        log.feed(b"x" * 50_000 + b"\n")
    log.say("still here")


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[SupervisedManager]:
    manager = SupervisedManager("user", tmp_path / "services")
    yield manager
    if manager.status("test").state != "not installed":
        manager.remove("test")


def test_install_status_logs_remove(manager, tmp_path):
    assert manager.status("test").state == "not installed"
    (advice,) = manager.install(ServiceSpec("test", script(tmp_path, ALIVE), tmp_path))
    assert "@reboot" in advice
    folder = tmp_path / "services/test"
    wait_for(folder, running)
    first = manager.status("test")
    assert (first.state, first.text, first.manager) == ("running", "fine", "supervisor")
    shown = subprocess.run(manager.logs_command("test", 10, False), capture_output=True, text=True)
    assert "hello" in shown.stdout

    manager.install(ServiceSpec("test", script(tmp_path, ALIVE), tmp_path))
    wait_for(folder, running)
    assert start_ticks(first.pid) is None, "the one before was replaced"
    supervisor = read_progress(folder).supervisor
    second = manager.status("test")
    manager.remove("test")
    assert not runs(supervisor)
    assert start_ticks(second.pid) is None
    assert manager.status("test").state == "not installed"
    with pytest.raises(InputError, match="there is no user service 'test'"):
        manager.remove("test")


def test_installs_at_once_replace_each_other_one_by_one(manager, tmp_path):
    spec = ServiceSpec("test", script(tmp_path, ALIVE), tmp_path)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: manager.install(spec), range(4)))
    folder = tmp_path / "services/test"
    wait_for(folder, running)
    child, alive = os.fsencode(tmp_path / "child.py") + b"\0", []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it ended meanwhile
            alive += [int(path.parent.name)] if path.read_bytes().endswith(child) else []
    assert alive == [manager.status("test").pid]


def test_a_killed_supervisor_is_told_and_removed_with_its_child(manager, tmp_path):
    manager.install(ServiceSpec("test", script(tmp_path, ALIVE), tmp_path))
    progress = wait_for(tmp_path / "services/test", running)
    os.kill(progress.supervisor[0], signal.SIGKILL)
    wait_for(tmp_path / "services/test", lambda _: not runs(progress.supervisor))
    status = manager.status("test")
    assert (status.state, status.text) == ("failed", "its supervisor was killed: install it again")
    manager.remove("test")
    assert not runs(progress.child)
