"""A connection to one board through the system's OpenSSH, opened once and shared by all commands.

The user's configuration, agent, keys, jump hosts and known hosts apply. Passwords are disabled (batch mode), and no
setting can make ssh accept an unknown host key. Where output of the board is shown, it is free of terminal escapes.
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from edgekit.errors import ERROR_PREFIX, HostError, InputError
from edgekit.files import write_all
from edgekit.remote.hosts import Host
from edgekit.remote.ssh_errors import explain, not_run
from edgekit.text import one_line

DEFAULT_TIMEOUT_S = 60.0
_CONNECT_TIMEOUT_S = 15
_OPEN_TIMEOUT_S = 60.0
_CLOSE_TIMEOUT_S = 0.5
_END_TIMEOUT_S = 1.0
# Time for the last output after a process has ended: ssh passes its pipes to the process of the shared connection.
_DRAIN_S = 5.0
_READ_BYTES = 1 << 16
# A socket's path may have 108 bytes, of which ssh needs 17 while it creates the socket.
_MAX_SOCKET_PATH = 85

# ssh uses the first value of an option, so these override ~/.ssh/config and --ssh-option.
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
# Used only where --ssh-option does not set them.
_PREFERRED = {
    "ConnectTimeout": str(_CONNECT_TIMEOUT_S),
    "ServerAliveInterval": "10",
    "ServerAliveCountMax": "3",
}


class ConnectionLostError(HostError):
    """The connection ended while a command was running."""


@dataclass(frozen=True)
class CommandResult:
    """Result of a command on the board: exit code, stdout and stderr."""

    returncode: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Stdout as text; bytes that are not UTF-8 are replaced."""
        return self.stdout.decode(errors="replace")

    @property
    def last_error_line(self) -> str:
        """Last line of stderr, printable and without edgekit's prefix of errors; empty if there is none."""
        lines = self.stderr.decode(errors="replace").strip().splitlines()
        return one_line(lines[-1].removeprefix(ERROR_PREFIX))[:500] if lines else ""


class Connection:
    """Connection to one board, open within a `with` block; thread-safe. Another thread may call `close` at any time.

    Raises on entering:
        InputError: This machine has no `ssh`.
        HostError: The board cannot be reached or refuses the connection; the message names the cure.

    Attributes:
        started_s: Start of the connection attempt, on the monotonic clock.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self.started_s = 0.0  # of the monotonic clock, when the block began
        self._ssh = shutil.which("ssh") or ""
        self._folder: Path | None = None  # contains the socket
        # ssh's process that has the connection, and the thread that reads its error output.
        self._master: subprocess.Popen[bytes] | None = None
        self._master_stderr = bytearray()
        self._master_reader: threading.Thread | None = None
        # One ssh process per command that runs on the board.
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()  # for `_running`
        self._closed = threading.Event()  # set by `close`, which may be called before there is a master

    def __enter__(self) -> Self:
        if not self._ssh:
            raise InputError("no 'ssh' on this machine: sudo apt install openssh-client")
        self.started_s = time.monotonic()
        self._folder = _private_folder()
        try:
            self._open()
        except BaseException:  # after which `__exit__` is not called
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
        on_stderr_line: Callable[[str], None] | None = None,
    ) -> CommandResult:
        """Run a program on the board and return its result, whatever its exit code.

        Args:
            arguments: The program and its arguments, passed on unchanged whatever characters they contain.
            stdin: Data for the program's stdin.
            hold_stdin: Keep stdin open until the program ends. The program then detects a lost connection by its closed
                stdin.
            timeout_s: Maximum duration; None for no limit.
            on_stderr_line: Called in another thread with each line of stderr, unchanged: it is not safe to print.

        Raises:
            ConnectionLostError: The connection ended.
            HostError: The program did not end in time, or the board's shell did not run it.
        """
        # The shell's start files may print a greeting: the program's output begins after the token.
        token = _token()
        # `exec` replaces the shell, so that an EXIT trap of its start files does not print after the program.
        process = self._start(f"echo {token}; exec {command_line(arguments)}")
        exchange = _Exchange(process, on_stderr_line)
        try:
            exchange.run((stdin,) if isinstance(stdin, bytes) else stdin, hold_stdin, timeout_s)
        except subprocess.TimeoutExpired:
            name = one_line(arguments[0])
            raise HostError(f"{self.host.label}: '{name}' did not end within {timeout_s} s") from None
        finally:
            self._end(process)
        # ssh was killed by `close`, or returned its own exit code because the connection failed.
        if process.returncode < 0 or (process.returncode == _SSH_FAILED and self._ends_soon()):
            raise ConnectionLostError(f"{self.host.label}: the connection was lost: {self._reason()}")
        stderr = bytes(exchange.stderr)
        greeting, found_token, stdout = bytes(exchange.stdout).partition(f"{token}\n".encode())
        if not found_token:
            raise HostError(f"{self.host.label}: {not_run(greeting or stderr)}")
        return CommandResult(process.returncode, stdout, stderr)

    def close(self) -> None:
        """Close the connection and end all commands that run over it."""
        self._closed.set()
        with self._lock:
            running = list(self._running)
        for process in running:
            process.kill()
        master, self._master = self._master, None
        if master is not None:
            with suppress(OSError):
                if master.stdin is not None:
                    master.stdin.close()
            # The master waits for its sessions: if it does not end by itself, it is terminated, and at last killed.
            for end_master in (master.terminate, master.kill):
                try:
                    master.wait(_CLOSE_TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    end_master()
            master.wait()
            if master.stdout is not None:  # `_read_master` closes stderr
                master.stdout.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _open(self) -> None:
        """Start the master process, whose connection all commands share, and wait until the board answers.

        Raises:
            HostError: The board cannot be reached, or refuses the connection.
        """
        # The board answers with the token. Then `cat` keeps the master's own session open: it ends with its stdin, also
        # when this process is killed.
        token = _token()
        master = self._master = subprocess.Popen(
            [*self._master_arguments(), f"echo {token}; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            start_new_session=True,  # Ctrl-C must reach this process only; `close` ends the sessions
        )
        assert master.stdout is not None
        assert master.stderr is not None
        self._master_reader = threading.Thread(target=self._read_master, args=(master.stderr,), daemon=True)
        self._master_reader.start()
        # Another thread called `close` before `_master` was set, so this master still runs; `__enter__` closes it.
        if self._closed.is_set():
            raise HostError(f"{self.host.label}: interrupted")
        timer = threading.Timer(_OPEN_TIMEOUT_S, master.kill)  # ends the loop
        timer.daemon = True
        timer.start()
        printed = b""
        for line in master.stdout:  # a .bashrc may print text first, and may not end its last line
            if line.endswith(f"{token}\n".encode()):
                timer.cancel()
                return
            printed = line
        timer.cancel()
        with suppress(subprocess.TimeoutExpired):
            master.wait(_CLOSE_TIMEOUT_S)
        self._master_reader.join(_CLOSE_TIMEOUT_S)
        raise HostError(f"{self.host.label}: {self._why_not_open(printed)}")

    def _why_not_open(self, printed: bytes) -> str:
        """Return why the master process ended before the board answered; `printed` is the last line of its stdout."""
        if time.monotonic() - self.started_s >= _OPEN_TIMEOUT_S:
            return f"no response within {_OPEN_TIMEOUT_S:.0f} s: check that the board runs and is not overloaded"
        if printed:  # by a shell that was logged in, and ended before the command
            return not_run(printed)
        return explain(self._master_stderr.decode(errors="replace"), self.host)

    def _read_master(self, stderr: IO[bytes]) -> None:
        """Collect the error output of the master process, in a thread of its own."""
        with stderr:  # closed here, because another thread must not close what this one reads
            for line in stderr:
                self._master_stderr += line

    def _master_arguments(self) -> list[str]:
        """Return the ssh command of the master process.

        The order matters: of several values of an option, ssh uses the first. So the user's options cannot change
        `_FIXED`, but replace `_PREFERRED`.
        """
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
        """Start a shell command on the board, over the shared connection."""
        if not self._is_open():
            raise ConnectionLostError(f"{self.host.label}: the connection was lost: {self._reason()}")
        arguments = [self._ssh, "-F", "none", "-S", self._socket(), "-T"]
        # Without the shared connection ssh would open one of its own, with other options; `ProxyCommand false` fails.
        for name, value in {**_FIXED, "ControlMaster": "no", "ProxyCommand": "false"}.items():
            arguments += ["-o", f"{name}={value}"]
        process = subprocess.Popen(
            [*arguments, "--", "board", command],  # ssh needs a name of the host, but the socket leads to it
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # closing a buffered stream would wait for the thread that reads it
            start_new_session=True,  # Ctrl-C must reach this process only, see `close`
        )
        with self._lock:
            self._running.add(process)
        return process

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """End a process of `_start`, which is ssh on this machine, if it still runs, and close its streams."""
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
        """Return the path of the socket through which commands use the shared connection."""
        assert self._folder is not None, "the connection is used outside its `with` block"
        return str(self._folder / "s")

    def _is_open(self) -> bool:
        """Return whether the shared connection can be used."""
        master = self._master
        if master is None or self._master_reader is None:
            return False
        if master.poll() is None and self._master_reader.is_alive():
            return True
        # A master that ends closes its stderr first, which ends the reader: give the process a moment to end.
        return not self._ends_soon()

    def _ends_soon(self) -> bool:
        """Return whether the master process, and with it the connection, has ended or ends within a moment.

        A command can fail through a lost connection before the master process has ended. A command that returns ssh's
        own exit code is delayed by this timeout.
        """
        master = self._master
        if master is None:
            return True
        with suppress(subprocess.TimeoutExpired):
            master.wait(_END_TIMEOUT_S)
        return master.poll() is not None

    def _reason(self) -> str:
        """Return why the connection was lost, from the stderr of the master process."""
        # The stderr of a command has the messages of the board's programs, too.
        text = self._master_stderr.decode(errors="replace").strip()
        return explain(text, self.host) if text else "the board or the network does not respond"


class _Exchange:
    """Writes the stdin of a process while its stdout and the lines of its stderr are read.

    `stdout` and `stderr` are what was read so far.
    """

    def __init__(self, process: subprocess.Popen[bytes], on_stderr_line: Callable[[str], None] | None) -> None:
        self.stdout, self.stderr = bytearray(), bytearray()
        self._failure: Exception | None = None
        self._process = process
        self._on_stderr_line = on_stderr_line or (lambda _: None)

    def run(self, chunks: Iterable[bytes], hold_stdin: bool, timeout_s: float | None) -> None:
        """Write `chunks` and read until the process ends; `timeout_s` None: without a limit.

        Raises:
            subprocess.TimeoutExpired: The process did not end in time.
        """
        readers = [threading.Thread(target=target, daemon=True) for target in (self._read_stdout, self._read_stderr)]
        writer = threading.Thread(target=self._write, args=(chunks, hold_stdin), daemon=True)
        for thread in (*readers, writer):
            thread.start()
        self._process.wait(timeout_s)
        # The writer is not waited for: it ends with the pipe, and `chunks` may take long to yield the next one.
        # The readers are, for a limited time: the master process, which goes on, may have their pipes open too.
        for thread in readers:
            thread.join(_DRAIN_S)
        if self._failure is not None:
            raise self._failure

    def _write(self, chunks: Iterable[bytes], hold: bool) -> None:
        """Write the stdin of the process, then close it; with `hold` only after an error, so that the process ends."""
        stream = self._process.stdin
        assert stream is not None
        try:
            for chunk in chunks:
                write_all(stream.write, chunk)
        except (BrokenPipeError, ValueError):  # ValueError: `stream` is closed
            pass  # the process closed its stdin; it may do that and still succeed
        except Exception as error:  # such as of a file that cannot be read
            self._failure = error
        if self._failure is not None or not hold:
            with suppress(OSError, ValueError):
                stream.close()

    def _read_stdout(self) -> None:
        assert self._process.stdout is not None
        for data in _chunks(self._process.stdout):
            self.stdout += data

    def _read_stderr(self) -> None:
        """Collect stderr, and call the function for its lines with each complete line."""
        assert self._process.stderr is not None
        rest = b""
        for data in _chunks(self._process.stderr):
            self.stderr += data
            # Complete lines, and the beginning of the next one. A last line without a line break is only in `stderr`.
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                try:
                    self._on_stderr_line(line.decode(errors="replace"))
                except Exception as error:  # the stream is still read to its end
                    self._failure = error


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield what arrives in a stream until it ends or is closed."""
    with suppress(OSError, ValueError):  # closed by another thread
        while data := stream.read(_READ_BYTES):
            yield data


def shell(text: str, *arguments: str) -> list[str]:
    """Return the command that runs a POSIX shell script; `arguments` are its $1, $2, ..."""
    return ["sh", "-c", text, "edgekit", *arguments]


def command_line(arguments: Sequence[str]) -> str:
    """Return arguments quoted for a POSIX shell and for fish, as one line.

    Raises:
        InputError: An argument contains a NUL character.
    """
    for argument in arguments:
        if "\0" in argument:
            raise InputError(f"'{one_line(argument)[:100]}' contains a NUL character")
    return " ".join(map(_quoted, arguments))


def _quoted(argument: str) -> str:
    """Return an argument with its backslashes outside of quotes: within single quotes, fish replaces some of them."""
    parts = [shlex.quote(part) if part else "" for part in argument.split("\\")]
    return r"\\".join(parts) or "''"


_SSH_FAILED = 255


def _private_folder() -> Path:
    """Make a folder for the socket; in /tmp if the path of the default folder is too long for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="edgekit-"))
    if len(os.fsencode(folder / "s")) <= _MAX_SOCKET_PATH:  # the path of `Connection._socket`
        return folder
    folder.rmdir()
    return Path(tempfile.mkdtemp(prefix="edgekit-", dir="/tmp"))


def _token() -> str:
    """Return a line that no other program prints; it separates a greeting from the output."""
    return f"edgekit-{secrets.token_hex(8)}"
