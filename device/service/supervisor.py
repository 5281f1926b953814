"""Keeps one command running where there is no systemd: what a unit says, done by hand, in one thread."""

from __future__ import annotations

import errno
import fcntl
import grp
import json
import os
import pwd
import selectors
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekit.device.procfs import start_ticks
from edgekit.device.service.folder import (
    LOCK_FILE,
    LOG_FILE,
    STATE_FILE,
    Progress,
    end_process,
    read_progress,
    read_spec,
    runs,
)
from edgekit.device.service.rotating import RotatingLog
from edgekit.device.service.spec import (
    DEVICE_GROUPS,
    EXITS_FOR_GOOD,
    START_TIMEOUT_S,
    STOP_TIMEOUT_S,
    WATCHDOG_S,
    State,
)
from edgekit.errors import EXIT_FAULT, EXIT_OK, InputError, StorageError
from edgekit.files import write_atomic

_PIECE_BYTES = 1 << 16


@dataclass(frozen=True)
class Timeouts:
    """How long to wait for the first frame, between signs of life, and from SIGTERM to SIGKILL; seconds."""

    start_s: float = START_TIMEOUT_S
    watchdog_s: float = WATCHDOG_S
    stop_s: float = STOP_TIMEOUT_S


class Supervisor:
    """Runs the command of `folder`'s service, restarts it when it fails or with SIGUSR1, and ends with SIGTERM.

    A lock that the kernel gives back with the process keeps a second supervisor out; a child that a killed supervisor
    left behind is ended first, because it holds the camera.
    """

    def __init__(self, folder: Path, timeouts: Timeouts = Timeouts()) -> None:
        """Read the service.

        Raises:
            InputError: `folder` describes none.
        """
        self._folder = folder
        self._spec = read_spec(folder)
        self._timeouts = timeouts
        self._log = RotatingLog(folder / LOG_FILE)
        self._selector = selectors.DefaultSelector()
        self._stopping = self._restarting = False
        self._progress = Progress("starting", _identity(os.getpid()), None, 0, None, None)

    def run(self) -> int:
        """Keep the command running until told to stop, it is done, or it fails for good; return an exit code.

        Raises:
            InputError: Another supervisor has this service.
        """
        with ExitStack() as opened:
            lock = opened.enter_context((self._folder / LOCK_FILE).open("a"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(f"service '{self._spec.name}' is already running") from error
            self._end_orphan()
            self._listen(opened)
            return self._keep_running()

    def _keep_running(self) -> int:
        policy, starts = self._spec.restart, deque[float]()
        while True:
            starts.append(time.monotonic())
            while starts[0] < starts[-1] - policy.window_s:
                starts.popleft()
            if len(starts) > policy.burst:
                self._note("failed", f"{policy.burst} starts in {policy.window_s:g} s: given up")
                return EXIT_FAULT
            last_exit, code = self._run_once()
            if self._told_to_restart():
                starts.clear()
                continue
            if self._told_to_stop() or code == EXIT_OK:
                self._note("stopped", f"ended with {last_exit}", last_exit=last_exit)
                return EXIT_OK
            if code in EXITS_FOR_GOOD:
                self._note("failed", f"ended with {last_exit}: not started again", last_exit=last_exit)
                return code
            pause_s = policy.pause_s(self._progress.restarts)
            self._note("waiting to restart", f"ended with {last_exit}: again in {pause_s:.3g} s", last_exit=last_exit)
            restart_s = time.monotonic() + pause_s
            self._serve(self._told, lambda: restart_s)  # noqa: B023 - called within this turn
            if self._told_to_restart():
                starts.clear()
                continue
            if self._told_to_stop():
                self._note("stopped", "told to stop")
                return EXIT_OK
            self._set(restarts=self._progress.restarts + 1)

    def _run_once(self) -> tuple[str, int]:
        """Start the command, wait for its end, and return how it ended, in words, with its exit code."""
        try:
            child = self._start()
        except OSError as error:
            return f"'{self._spec.command[0]}' cannot be started: {error.strerror}", EXIT_FAULT
        assert child.stdout is not None
        self._selector.register(child.stdout, selectors.EVENT_READ, lambda: self._take_output(child))
        self._note("starting", f"started, pid {child.pid}", child=_identity(child.pid), text=None)
        self._alive_s, why = time.monotonic(), None
        self._serve(lambda: self._told() or child.poll() is not None, lambda: self._alive_s + self._patience_s())
        if child.poll() is None and not self._told():
            why = "watchdog" if self._progress.state == "running" else "start timeout"
            self._log.say(f"no finished frame for {self._patience_s():g} s: ending pid {child.pid}")
            self._end(child, signal.SIGABRT)
        elif child.poll() is None:
            self._end(child, signal.SIGTERM)
        code = self._collect(child)
        return why or (f"exit code {code}" if code >= 0 else f"signal {-code}"), code

    def _patience_s(self) -> float:
        return self._timeouts.watchdog_s if self._progress.state == "running" else self._timeouts.start_s

    def _start(self) -> subprocess.Popen[bytes]:
        watched = {"NOTIFY_SOCKET": self._address, "WATCHDOG_USEC": str(int(self._timeouts.watchdog_s * 1e6))}
        rights: dict[str, Any] = {}
        if self._spec.run_as is not None:
            user = _user(self._spec.run_as)
            groups = {*os.getgrouplist(user.pw_name, user.pw_gid), *_device_groups()}
            rights = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": sorted(groups)}
            watched |= {"HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name}
            for path in (self._address, os.path.dirname(self._address)):  # noqa: PTH120
                os.chown(path, user.pw_uid, user.pw_gid)
        return subprocess.Popen(
            self._spec.command,
            cwd=self._spec.folder,
            env={**os.environ, **self._spec.environment, **watched},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
            **rights,
        )

    def _end(self, child: subprocess.Popen[bytes], number: signal.Signals) -> None:
        """Send a signal to the child and, if it still runs after a while, SIGKILL to all it started."""
        child.send_signal(number)
        ends_s = time.monotonic() + self._timeouts.stop_s
        self._serve(lambda: child.poll() is not None, lambda: ends_s)
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)

    def _collect(self, child: subprocess.Popen[bytes]) -> int:
        code = child.wait()
        assert child.stdout is not None
        with suppress(KeyError):
            self._selector.unregister(child.stdout)
        os.set_blocking(child.stdout.fileno(), False)
        with suppress(BlockingIOError):  # a grandchild may hold the pipe: take what is there
            while data := os.read(child.stdout.fileno(), _PIECE_BYTES):
                self._log.feed(data)
        self._log.flush()
        child.stdout.close()
        self._set(child=None)
        return code

    def _serve(self, done: Callable[[], bool], deadline_s: Callable[[], float]) -> None:
        """Handle signals, output and messages until `done` or the time, which these may put off, is over."""
        while not done() and (left_s := deadline_s() - time.monotonic()) > 0:
            for key, _ in self._selector.select(left_s):
                key.data()

    def _listen(self, opened: ExitStack) -> None:
        """Make events of the one loop from signals and from the child's messages."""
        ours, theirs = socket.socketpair()
        for end in (opened.enter_context(ours), opened.enter_context(theirs)):
            end.setblocking(False)
        opened.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(theirs.fileno()))
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            opened.callback(signal.signal, number, signal.signal(number, self._ask_to_stop))
        opened.callback(signal.signal, signal.SIGUSR1, signal.signal(signal.SIGUSR1, self._ask_to_restart))
        # Without a handler Python would not write to the socket when the child ends.
        opened.callback(signal.signal, signal.SIGCHLD, signal.signal(signal.SIGCHLD, lambda *_: None))
        self._selector.register(ours, selectors.EVENT_READ, lambda: ours.recv(_PIECE_BYTES))
        # In a folder with a short name: the kernel takes 108 bytes.
        folder = tempfile.mkdtemp(prefix="edgekit-")
        opened.callback(shutil.rmtree, folder, ignore_errors=True)
        self._address = f"{folder}/notify"
        notices = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        notices.bind(self._address)
        self._selector.register(notices, selectors.EVENT_READ, lambda: self._take_notice(notices.recv(_PIECE_BYTES)))

    def _take_output(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stdout is not None
        if data := os.read(child.stdout.fileno(), _PIECE_BYTES):
            self._log.feed(data)
        else:
            self._selector.unregister(child.stdout)

    def _take_notice(self, message: bytes) -> None:
        lines = message.decode(errors="replace").splitlines()
        told = dict(line.split("=", 1) for line in lines if "=" in line)
        if told.get("WATCHDOG") == "1":
            self._alive_s = time.monotonic()
        if told.get("READY") == "1" and self._progress.state == "starting":
            # The one text that is kept: a file written every few seconds wears an SD card out.
            self._note("running", "first frame done", text=told.get("STATUS"))

    def _told(self) -> bool:
        return self._stopping or self._restarting

    def _told_to_stop(self) -> bool:
        return self._stopping

    def _told_to_restart(self) -> bool:
        """Take the wish for a restart, if there is one and none to stop."""
        told, self._restarting = self._restarting and not self._stopping, False
        if told:
            self._note("starting", "told to restart", restarts=0)
        return told

    def _ask_to_stop(self, *_: object) -> None:
        self._stopping = True

    def _ask_to_restart(self, *_: object) -> None:
        self._restarting = True

    def _end_orphan(self) -> None:
        before = read_progress(self._folder)
        if before is not None and before.child is not None and runs(before.child):
            self._log.say(f"ending pid {before.child[0]}, left behind by a supervisor that was killed")
            end_process(before.child, self._timeouts.stop_s)

    def _note(self, state: State, line: str, **changes: Any) -> None:
        self._log.say(line)
        self._set(state=state, **changes)

    def _set(self, **changes: Any) -> None:
        self._progress = Progress(**vars(self._progress) | changes)
        with suppress(StorageError):  # a full disk stops no service
            write_atomic(self._folder / STATE_FILE, json.dumps(asdict(self._progress)) + "\n")


def _identity(pid: int) -> tuple[int, int]:
    return pid, start_ticks(pid) or 0


def _user(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError as error:  # deleted since the service was installed
        raise FileNotFoundError(errno.ENOENT, f"user '{name}' does not exist") from error


def _device_groups() -> list[int]:
    return [group.gr_gid for group in grp.getgrall() if group.gr_name in DEVICE_GROUPS]
