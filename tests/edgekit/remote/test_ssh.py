"""Connections through a real ssh and sshd."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.errors import HostError, InputError
from edgekit.remote.ssh import Connection, ConnectionLostError, command_line, shell
from tests.waiting import has_ended, wait_until

from .conftest import Sshd, cut, has_penalties, know, serve

SHOW = """for word; do printf '%s\\0' "$word"; done"""
HOSTILE = [
    "a'b",
    'a"b',
    "two\nlines",
    "; touch planted",
    "$(touch planted)",
    "\x1b]0;title\x07\x1b[2J",
    "-oProxyCommand=touch planted",
    "$HOME",
    "a\\",
    "a\\'b",
    "",
    " ",
    "!!",
    "\r",
]


def test_every_argument_arrives_unchanged(connection: Connection) -> None:
    done = connection.run(shell(SHOW, *HOSTILE))
    assert done.stdout.decode().split("\0")[:-1] == HOSTILE


@pytest.mark.parametrize("program", ["sh", "bash", "dash", "zsh", "fish"])
def test_every_login_shell_reads_the_arguments_unchanged(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"no {program} on this machine")
    shown = command_line(shell(SHOW, *HOSTILE))
    done = subprocess.run([program, "-c", shown], capture_output=True, check=True)
    assert done.stdout.decode().split("\0")[:-1] == HOSTILE


def test_a_nul_character_is_refused(connection: Connection) -> None:
    with pytest.raises(InputError, match="NUL"):
        connection.run(["echo", "a\0b"])


def test_exit_code_and_last_error_line(connection: Connection) -> None:
    done = connection.run(shell("echo out; echo first >&2; printf '\\033[31mlast\\n' >&2; exit 7"))
    assert (done.returncode, done.text, done.last_error_line) == (7, "out\n", "\\x1b[31mlast")


def test_an_exit_code_255_of_the_program_is_not_a_lost_connection(connection: Connection) -> None:
    assert connection.run(shell("exit 255")).returncode == 255


def test_a_connection_that_ends_a_moment_before_its_process_is_lost(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, slow = shutil.which("ssh"), tmp_path / "ssh"
    slow.write_text(
        f'#!/bin/sh\n[ "$1" = -M ] || exec "{real}" "$@"\n'
        f'"{real}" "$@" <&0 &\necho $! > "{tmp_path}/pid"\nwait $!\ncode=$?\nsleep 0.4\nexit $code\n'
    )
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def cut(_: str) -> None:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)

    with Connection(sshd.host()) as connected, pytest.raises(ConnectionLostError):
        connected.run(shell("echo now >&2; sleep 600"), on_stderr_line=cut)


def test_stdin_arrives_complete(connection: Connection) -> None:
    data = os.urandom(1 << 20)
    assert connection.run(["cat"], stdin=data).stdout == data
    assert connection.run(["cat"]).stdout == b""


def test_a_program_that_does_not_read_its_stdin_succeeds_and_data_that_cannot_be_read_are_an_error(
    connection: Connection,
) -> None:
    assert connection.run(["true"], stdin=os.urandom(1 << 20)).returncode == 0

    def torn() -> Iterator[bytes]:
        yield b"first"
        raise OSError("no such file")

    with pytest.raises(OSError, match="no such file"):
        connection.run(["cat"], stdin=torn())


def test_stderr_arrives_complete_and_line_by_line(connection: Connection) -> None:
    lines: list[str] = []
    script = "printf 'first\\nsec' >&2; sleep 0.2; printf 'ond\\n\\377\\nrest' >&2"
    assert connection.run(shell(script), on_stderr_line=lines.append).stderr == b"first\nsecond\n\xff\nrest"
    assert lines == ["first", "second", "\ufffd"]

    def fail(_: str) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        connection.run(shell(script), on_stderr_line=fail)


def test_a_connection_that_is_closed_while_it_opens_is_interrupted(sshd: Sshd) -> None:
    connection = Connection(sshd.host())
    connection.close()
    with pytest.raises(HostError, match="interrupted"):
        connection.__enter__()


def test_a_machine_without_ssh_is_an_error(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError):
        Connection(sshd.host()).__enter__()


def test_a_long_path_of_the_temporary_folder_is_no_obstacle(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ("x" * 60)).mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("x" * 60)))
    with Connection(sshd.host()) as connected:
        assert connected.run(["echo", "here"]).text == "here\n"
    assert list((tmp_path / ("x" * 60)).iterdir()) == []


def test_a_program_that_hangs_times_out(connection: Connection) -> None:
    with pytest.raises(HostError, match=r"did not end within 0\.5 s"):
        connection.run(["sleep", "600"], timeout_s=0.5)
    with pytest.raises(HostError, match=r"did not end within 0\.5 s"):
        connection.run(["cat"], hold_stdin=True, timeout_s=0.5)
    assert connection.run(["echo", "still here"]).text == "still here\n"


def test_closing_the_connection_ends_what_holds_its_stdin(sshd: Sshd, tmp_path: Path) -> None:
    started, ended = tmp_path / "started", tmp_path / "ended"
    code = 'touch "$1"; cat >/dev/null; touch "$2"'
    with Connection(sshd.host()) as connected:

        def work() -> None:
            with pytest.raises(ConnectionLostError):
                connected.run(shell(code, str(started), str(ended)), hold_stdin=True, timeout_s=None)

        thread = threading.Thread(target=work)
        thread.start()
        wait_until(started.exists)
        assert not ended.exists()
    thread.join(20)
    assert not thread.is_alive()
    wait_until(ended.exists)


def test_killing_this_process_closes_the_connection(sshd: Sshd, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom edgekit.remote.hosts import Host\n"
        "from edgekit.remote.ssh import Connection\n"
        f"host = Host('127.0.0.1', 'board', {sshd.port}, Path({str(sshd.folder / 'id')!r}), {sshd.options!r})\n"
        "Connection(host).__enter__()\n"
        "print(Path(f'/proc/self/task/{os.getpid()}/children').read_text(), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    wait_until(lambda: has_ended(int(done.stdout)))


def test_an_unknown_host_key_is_refused_with_the_cure(sshd: Sshd) -> None:
    options = ("-F", "none", "-o", "UserKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=no")
    with pytest.raises(HostError, match=r"host key is not known on this machine: run 'ssh .*compare the fingerprint"):
        Connection(sshd.host(ssh_options=options)).__enter__()


@pytest.mark.parametrize("weakening", ["StrictHostKeyChecking=no", "StrictHostKeyChecking=accept-new"])
def test_a_changed_host_key_is_refused_whatever_the_options(sshd: Sshd, weakening: str) -> None:
    known = know(sshd.folder, sshd.port, sshd.folder / "other_host_key.pub", "other_known_hosts")
    options = ("-F", "none", "-o", f"UserKnownHostsFile={known}", "-o", weakening)
    with pytest.raises(HostError, match="its host key has changed"):
        Connection(sshd.host(ssh_options=options)).__enter__()
    assert "other" not in (sshd.folder / "known_hosts").read_text()


def test_the_users_configuration_cannot_weaken_host_keys_either(sshd: Sshd, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        f"Host pi\n HostName 127.0.0.1\n Port {sshd.port}\n IdentityFile {sshd.folder / 'id'}\n"
        " UserKnownHostsFile /dev/null\n StrictHostKeyChecking no\n NoHostAuthenticationForLocalhost yes\n"
    )
    with pytest.raises(HostError, match="host key is not known"):
        Connection(sshd.host(address="pi", port=None, identity=None, ssh_options=("-F", str(config)))).__enter__()


def test_the_cure_of_a_changed_host_key_names_the_entry_in_known_hosts(sshd: Sshd, tmp_path: Path) -> None:
    known = know(sshd.folder, sshd.port, sshd.folder / "other_host_key.pub", "other_known_hosts")
    config = tmp_path / "config"
    config.write_text(f"Host pi\n HostName 127.0.0.1\n Port {sshd.port}\n UserKnownHostsFile {known}\n")
    with pytest.raises(HostError) as error:
        Connection(sshd.host(address="pi", port=None, ssh_options=("-F", str(config)))).__enter__()
    (command,) = re.findall(r"'(ssh-keygen .*?)', then", str(error.value))
    assert str(known) in command
    subprocess.run(["sh", "-c", command], check=True, capture_output=True)
    assert known.read_text() == ""


def test_the_users_configuration_is_used(sshd: Sshd, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        f"Host pi\n HostName 127.0.0.1\n Port {sshd.port}\n IdentityFile {sshd.folder / 'id'}\n"
        f" UserKnownHostsFile {sshd.folder / 'known_hosts'}\n RemoteCommand echo no\n RequestTTY force\n"
        " ControlPath ~/.ssh/shared\n LocalForward 1 127.0.0.1:1\n"
    )
    host = sshd.host(address="pi", port=None, identity=None, ssh_options=("-F", str(config)))
    with Connection(host) as connected:
        assert connected.run(["echo", "yes"]).text == "yes\n"


def test_a_refused_key_is_reported_with_the_cure(sshd: Sshd) -> None:
    key = sshd.folder / "other_id"
    with pytest.raises(HostError, match="none of your keys") as refused:
        Connection(sshd.host(identity=key, ssh_options=("-4", *sshd.options))).__enter__()
    # `-4` is not an option of ssh-copy-id.
    assert f"'ssh-copy-id -p {sshd.port} -i {key} {' '.join(sshd.options)} 127.0.0.1'" in str(refused.value)


def test_a_private_key_that_others_can_read_is_named(sshd: Sshd, tmp_path: Path) -> None:
    key = tmp_path / "key"
    shutil.copy(sshd.folder / "id", key)
    key.chmod(0o644)
    with pytest.raises(HostError, match="chmod 600"):
        Connection(sshd.host(identity=key)).__enter__()


def test_a_board_that_refuses_logins_after_a_rejected_one_is_explained(tmp_path: Path) -> None:
    penalty = "PerSourcePenalties authfail:60s min:1s"
    if not has_penalties():
        pytest.skip("this sshd has no penalties")
    with serve(tmp_path, penalty) as strict:
        with pytest.raises(HostError, match="none of your keys"):
            Connection(strict.host(identity=strict.folder / "other_id")).__enter__()

        def refusal() -> str:
            with pytest.raises(HostError) as refused:
                Connection(strict.host(identity=strict.folder / "other_id")).__enter__()
            return str(refused.value)

        # sshd may not have counted the login yet, and may close a connection later than before the login.
        wait_until(lambda: "PerSourcePenalties" in refusal())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"port": 1}, "the port is closed"),
        ({"address": "no-such-host.invalid"}, "the name is unknown"),
        ({"ssh_options": ("-o", "NoSuchOption=1")}, "check --ssh-option"),
    ],
)
def test_unreachable_hosts_are_explained(sshd: Sshd, changes: dict[str, object], message: str) -> None:
    with pytest.raises(HostError, match=message):
        Connection(sshd.host(**changes)).__enter__()


def test_a_lost_connection_is_reported_and_not_reopened(sshd: Sshd) -> None:
    with Connection(sshd.host()) as connected:
        cut(connected)
        for _ in range(2):
            with pytest.raises(ConnectionLostError, match="connection was lost"):
                connected.run(["echo", "hello"])


def test_what_a_program_printed_is_not_the_reason_of_a_lost_connection(sshd: Sshd) -> None:
    script = (
        "echo 'cp: Permission denied' >&2; echo 'Host key verification failed' >&2; sleep 1; kill -9 $PPID; sleep 60"
    )
    with Connection(sshd.host()) as connected, pytest.raises(ConnectionLostError) as error:
        connected.run(["sh", "-c", script])
    assert "keys" not in str(error.value)
    assert "host key" not in str(error.value)


def test_nothing_is_left_behind(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    # The path of pytest's own folder can be too long for a socket.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setattr("tempfile.tempdir", folder)
        with Connection(sshd.host()) as connected:
            (socket_folder,) = Path(folder).iterdir()
            assert socket_folder.stat().st_mode & 0o777 == 0o700
            # The time limit of the login has ended with it.
            wait_until(lambda: not any(isinstance(thread, threading.Timer) for thread in threading.enumerate()))
            connected.run(["true"])
        assert list(Path(folder).iterdir()) == []
