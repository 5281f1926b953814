"""Boards whose shell prints a text before the output of a program, or instead of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from edgekit.errors import EXIT_FAULT, EXIT_OK, HostError
from edgekit.remote.prepare import clean
from edgekit.remote.probe import probe
from edgekit.remote.ssh import Connection, shell

from .commands import call, ssh_words
from .conftest import Sshd

GREETINGS = {
    "no line break": "printf 'Welcome '",
    "JSON": 'echo \'{"schema": "edgekit-doctor/1"}\'',
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


def test_the_doctor_examines_a_board_that_greets(sshd: Sshd, greet: Greet) -> None:
    greet(GREETINGS["JSON"])
    done = call("doctor", "--json", "--host", "127.0.0.1", *ssh_words(sshd))
    assert done.returncode in (EXIT_OK, EXIT_FAULT), done.stderr
    assert json.loads(done.stdout)
    assert "✓  python" in done.stderr


def test_a_shell_that_ends_before_the_command_is_named_with_its_text(sshd: Sshd, greet: Greet) -> None:
    with Connection(sshd.host()) as connection:
        greet("echo 'Account locked'; exit 3")
        with pytest.raises(HostError, match="without running the command; it printed 'Account locked'") as caught:
            probe(connection)
        assert "~/.bashrc" in str(caught.value)
