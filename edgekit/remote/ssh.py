"""A connection to one board through the system's OpenSSH: opened once, shared by every command sent over it.

The user's configuration, agent, keys, jump hosts and known hosts apply. What does not: passwords (batch mode), and any
setting that would accept an unknown host key. What the board prints is bounded in size and, where it is shown, free of
terminal escapes.
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from edgekit.errors import HostError, InputError
from edgekit.remote.hosts import Host
from edgekit.remote.process_io import MAX_LINE_BYTES, Limits, Tail, communicate
from edgekit.remote.ssh_errors import explain
from edgekit.text import one_line

DEFAULT_TIMEOUT_S = 60.0
DEFAULT_LIMIT_BYTES = 1 << 20
_CONNECT_TIMEOUT_S = 15
_OPEN_TIMEOUT_S = 60.0
_CLOSE_TIMEOUT_S = 0.5
_END_TIMEOUT_S = 1.0
_KEPT_ERROR_BYTES = 1 << 16
# The progress of a benchmark that takes days.
_LIMIT_ERROR_BYTES = 64 << 20
# A socket's path may have 108 bytes, and ssh appends 17 of its own while it makes one.
_MAX_SOCKET_PATH = 85

# ssh takes the first value it meets, so what stands here holds against ~/.ssh/config and --ssh-option alike.
_FIXED = {
    "BatchMode": "yes",
    "StrictHostKeyChecking": "yes",
    "NoHostAuthenticationForLocalhost": "no",
    "ControlPersist": "no",
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "PermitLocalCommand": "no",
    "RemoteCommand": "none",
    "RequestTTY": "no",
    "SessionType": "default",
    "StdinNull": "no",
    "ForkAfterAuthentication": "no",
    "LogLevel": "ERROR",
}
# And these only where the user's own --ssh-option says nothing.
_PREFERRED = {
    "ConnectTimeout": str(_CONNECT_TIMEOUT_S),
    "ServerAliveInterval": "10",
    "ServerAliveCountMax": "3",
}


class ConnectionLostError(HostError):
    """The connection ended while something was under way."""


@dataclass(frozen=True)
class Completed:
    """What a command on the board left: its exit code, its stdout, and the end of its stderr."""

    returncode: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Its stdout as text; bytes that are no UTF-8 are replaced."""
        return self.stdout.decode(errors="replace")

    @property
    def complaint(self) -> str:
        """The last line it wrote to stderr, safe to show; empty if there is none."""
        lines = self.stderr.decode(errors="replace").strip().splitlines()
        return one_line(lines[-1])[:500] if lines else ""


class Connection:
    """One board, reached when the `with` block is entered; thread-safe.

    Raises on entering:
        InputError: There is no `ssh` here.
        HostError: The board cannot be reached or refuses; the message says what to do.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self._ssh = shutil.which("ssh") or ""
        self._folder: Path | None = None
        self._master: subprocess.Popen[bytes] | None = None
        self._heard = Tail(_KEPT_ERROR_BYTES)
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        if not self._ssh:
            raise InputError("no 'ssh' on this machine: sudo apt install openssh-client")
        self._folder = _private_folder()
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def run(
        self,
        arguments: Sequence[str],
        *,
        stdin: bytes | Iterable[bytes] = b"",
        hold_stdin: bool = False,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        silence_s: float | None = None,
        limit_bytes: int = DEFAULT_LIMIT_BYTES,
        on_stderr_line: Callable[[str], None] | None = None,
    ) -> Completed:
        """Run a program on the board and return what it left, whatever its exit code.

        Args:
            arguments: The program and its arguments; each arrives as it is, whatever characters it has.
            stdin: What it reads.
            hold_stdin: Leave its stdin open until it ends, so that it can tell by the end of stdin that nobody waits
                for it any more.
            timeout_s: How long it may take; None: as long as it likes.
            silence_s: How long it may neither say a word nor take a byte of stdin; None: as long as it likes.
            limit_bytes: The most it may print on stdout.
            on_stderr_line: Called with each line of stderr, cut to 4 KiB; the text is as the board sent it.

        Raises:
            ConnectionLostError: The connection ended.
            HostError: It took too long, was silent for too long, or printed too much.
        """
        process = self._start(command_line(arguments))
        chunks = (stdin,) if isinstance(stdin, bytes) else stdin
        limits = Limits(timeout_s, silence_s, limit_bytes, _LIMIT_ERROR_BYTES)
        try:
            talk = communicate(process, chunks, hold_stdin, limits, on_stderr_line)
        finally:
            self._end(process)
        if talk.ended != "by itself":
            what = {
                "too much": f"printed more than {limit_bytes} bytes",
                "too many complaints": f"printed more than {_LIMIT_ERROR_BYTES >> 20} MiB of messages",
                "too late": f"did not end within {timeout_s} s",
                "too silent": f"gave no sign of life for {silence_s} s",
            }[talk.ended]
            raise HostError(f"{self.host.label}: '{one_line(arguments[0])}' {what}")
        if process.returncode < 0 or (process.returncode == _SSH_FAILED and self._ends_soon()):
            raise ConnectionLostError(f"{self.host.label}: the connection was lost: {self._reason(talk.stderr.text())}")
        return Completed(process.returncode, bytes(talk.stdout), talk.stderr.content())

    def close(self) -> None:
        """End the connection and everything that runs over it."""
        with self._lock:
            running = list(self._running)
        for process in running:
            process.kill()
        master, self._master = self._master, None
        if master is not None:
            with suppress(OSError):
                if master.stdin is not None:
                    master.stdin.close()
            # It would wait for whatever still runs over it; ending it closes the connection under that.
            for end in (master.terminate, master.kill):
                try:
                    master.wait(_CLOSE_TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    end()
            master.wait()
            for stream in (master.stdout, master.stderr):
                if stream is not None:
                    stream.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _open(self) -> None:
        # The session of the first connection is a `cat`: the connection lives until its stdin, ours, ends, also when
        # this process is killed.
        token = f"edgekit-{secrets.token_hex(8)}"
        master = self._master = subprocess.Popen(
            [*self._master_arguments(), f"echo {token}; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            start_new_session=True,  # Ctrl-C is ours to handle; closing the connection ends what runs there
        )
        assert master.stdout is not None
        assert master.stderr is not None
        follower = threading.Thread(target=_follow, args=(master.stderr, self._heard), daemon=True)
        follower.start()
        too_late = threading.Event()

        def give_up() -> None:
            too_late.set()
            master.kill()

        timer = threading.Timer(_OPEN_TIMEOUT_S, give_up)
        timer.daemon = True
        timer.start()
        try:
            answered = _read_until(master.stdout, f"{token}\n".encode())
        finally:
            timer.cancel()
        if answered:
            return
        if too_late.is_set():
            raise HostError(f"{self.host.label}: no answer within {_OPEN_TIMEOUT_S:.0f} s: is the board up and idle?")
        with suppress(subprocess.TimeoutExpired):
            master.wait(_CLOSE_TIMEOUT_S)
        follower.join(_CLOSE_TIMEOUT_S)
        raise HostError(f"{self.host.label}: {explain(self._heard.text(), self.host)}")

    def _master_arguments(self) -> list[str]:
        host = self.host
        arguments = [self._ssh, "-M", "-S", self._socket()]
        for name, value in _FIXED.items():
            arguments += ["-o", f"{name}={value}"]
        if host.port is not None:
            arguments += ["-p", str(host.port)]
        if host.identity is not None:
            arguments += ["-i", str(host.identity)]
        arguments += host.ssh_options
        for name, value in _PREFERRED.items():
            arguments += ["-o", f"{name}={value}"]
        return [*arguments, "--", host.address]

    def _start(self, command: str) -> subprocess.Popen[bytes]:
        if not self._is_open():
            raise ConnectionLostError(f"{self.host.label}: the connection was lost: {self._reason('')}")
        arguments = [self._ssh, "-F", "none", "-S", self._socket(), "-T"]
        # Over the shared connection or not at all: without it ssh would make one of its own, by other rules.
        for name, value in {**_FIXED, "ControlMaster": "no", "ProxyCommand": "false"}.items():
            arguments += ["-o", f"{name}={value}"]
        process = subprocess.Popen(
            [*arguments, "--", "board", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        with self._lock:
            self._running.add(process)
        return process

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            process.kill()
            process.wait()
        with self._lock:
            self._running.discard(process)
        for stream in (process.stdin, process.stdout, process.stderr):
            with suppress(OSError):
                if stream is not None:
                    stream.close()

    def _socket(self) -> str:
        assert self._folder is not None, "the connection is used outside its `with` block"
        return str(self._folder / "s")

    def _is_open(self) -> bool:
        master = self._master
        if master is None:
            return False
        if master.poll() is None and not self._heard.closed.is_set():
            return True
        return not self._ends_soon()

    def _ends_soon(self) -> bool:
        # A command over the connection can see it end before the process that holds it is gone. A command that ends
        # with ssh's own exit code pays this second for it.
        master = self._master
        if master is None:
            return True
        with suppress(subprocess.TimeoutExpired):
            master.wait(_END_TIMEOUT_S)
        return master.poll() is not None

    def _reason(self, told: str) -> str:
        text = f"{told}\n{self._heard.text()}".strip()
        return explain(text, self.host) if text else "the board or the network went away"


def shell(text: str, *arguments: str) -> list[str]:
    """Return what runs a POSIX shell script on the board; `arguments` are its $1, $2, ..."""
    return ["sh", "-c", text, "edgekit", *arguments]


def command_line(arguments: Sequence[str]) -> str:
    """Return arguments as the one line that a POSIX shell takes apart into exactly these.

    Raises:
        InputError: One holds a NUL, which no program can be given.
    """
    for argument in arguments:
        if "\0" in argument:
            raise InputError(f"'{one_line(argument)[:100]}' holds a NUL character")
    return " ".join(shlex.quote(argument) for argument in arguments)


_SSH_FAILED = 255


def _private_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="edgekit-"))
    if len(os.fsencode(folder)) + 2 <= _MAX_SOCKET_PATH:
        return folder
    folder.rmdir()
    return Path(tempfile.mkdtemp(prefix="edgekit-", dir="/tmp"))


def _read_until(stream: IO[bytes], line: bytes) -> bool:
    # A shell that greets (in .bashrc) comes first; how much it may say is bounded.
    for _ in range(1000):
        read = stream.readline(MAX_LINE_BYTES)
        if read.endswith(line):  # what greets need not end its line
            return True
        if not read:
            return False
    return False


def _follow(stream: IO[bytes], tail: Tail) -> None:
    with suppress(OSError, ValueError):
        while data := stream.readline(MAX_LINE_BYTES):
            tail.add(data)
    tail.closed.set()
