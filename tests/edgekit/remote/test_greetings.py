"""Boards whose shell prints a text before the output of a program, or instead of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import pytest

from edgekit.errors import EXIT_FAULT, EXIT_HOSTS, EXIT_OK, HostError
from edgekit.remote.prepare import clean
from edgekit.remote.probe import probe
from edgekit.remote.ssh import Connection, shell

from .commands import call, ssh_words
from .conftest import Sshd

GREETINGS = {
    "a line": "echo 'Welcome to board 7'",
    "no line break": "printf 'Welcome '",
    "JSON": 'echo \'{"schema": "edgekit-doctor/1"}\'',
    "many bytes": "head -c 50000 /dev/zero | tr '\\0' x",
    "a property": "echo root=/elsewhere; echo clock=0",
    "at the end": "trap 'echo goodbye' EXIT",
    "on stderr": "echo 'mesg: ttyname failed' >&2",
}
Greet = Callable[[str], None]


@pytest.fixture
def greet(sshd: Sshd) -> Iterator[Greet]:
    """Return a function that writes the start file of the board's shell."""
    path = sshd.home / ".bashrc"

    def write(text: str) -> None:
        path.write_text(f"{text}\n")

    yield write
    path.unlink(missing_ok=True)


@pytest.mark.parametrize("greeting", GREETINGS.values(), ids=GREETINGS)
def test_a_greeting_is_not_part_of_any_output(sshd: Sshd, greet: Greet, greeting: str) -> None:
    greet(greeting)
    with Connection(sshd.host()) as connection:
        assert connection.run(shell("printf 'a\\nb'")).stdout == b"a\nb"
        assert connection.run(["cat"], stdin=b"through").stdout == b"through"
        assert probe(connection).root == str(sshd.home / ".cache/edgekit/board")
        assert clean(connection) >= 0


@pytest.mark.parametrize("greeting", [GREETINGS["a line"], GREETINGS["JSON"]], ids=["a line", "JSON"])
def test_the_doctor_examines_a_board_that_greets(sshd: Sshd, greet: Greet, greeting: str) -> None:
    greet(greeting)
    done = call("doctor", "--json", "--host", sshd.address, *ssh_words(sshd))
    assert done.returncode in (EXIT_OK, EXIT_FAULT), done.stderr
    assert json.loads(done.stdout)
    assert "✓  python" in done.stderr


@pytest.mark.parametrize(
    ("text", "shown"),
    [("echo 'Account locked'; exit 3", "it printed 'Account locked'"), ("exit 1", "it printed nothing")],
)
def test_a_shell_that_ends_before_the_command_is_named_with_its_text(
    sshd: Sshd, greet: Greet, text: str, shown: str
) -> None:
    with Connection(sshd.host()) as connection:
        greet(text)
        with pytest.raises(HostError, match=re.escape(f"without running the command; {shown}")) as caught:
            probe(connection)
        assert "~/.bashrc" in str(caught.value)


def test_a_shell_that_ends_at_the_login_is_named_with_its_text(sshd: Sshd, greet: Greet) -> None:
    greet("echo 'Account locked'; exit 3")
    done = call("releases", "--host", sshd.address, *ssh_words(sshd))
    assert done.returncode == EXIT_HOSTS
    assert done.stderr.count("it printed 'Account locked'") == 1, done.stderr


def test_a_command_of_the_board_that_prints_more_than_json_is_shown(sshd: Sshd) -> None:
    own = sshd.home / ".local/bin/edgekit"
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text("#!/bin/sh\necho Welcome to the edgekit of board 7\necho '{}'\n")
    own.chmod(0o755)
    try:
        done = call("bench", "fer2013", "--no-install", "--no-pipeline", "--host", sshd.address, *ssh_words(sshd))
        assert done.returncode == EXIT_HOSTS
        assert "it printed 'Welcome to the edgekit of board 7 {}'" in done.stdout + done.stderr
    finally:
        own.unlink()
