"""`edgekit doctor --host` through a real sshd, with this machine's bare Python and with hostile boards."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.remote import doctor
from edgekit.remote.doctor import examine_host
from edgekit.remote.hosts import Host
from edgekit.remote.probe import probe
from edgekit.remote.ssh import Connection

from .commands import call, ssh_words
from .conftest import Sshd


class Silent:
    """A reporter that ignores messages and records the progress."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, float, float]] = []

    def message(self, host: Host, text: str) -> None:
        del host, text

    def progress(self, host: Host, what: str, done: float, total: float) -> None:
        del host
        self.steps.append((what, done, total))


def run(sshd: Sshd, *more: object) -> subprocess.CompletedProcess[str]:
    return call("doctor", *more, *ssh_words(sshd))


@pytest.fixture
def python(sshd: Sshd) -> Iterator[Path]:
    """A script in place of the Python next to the board's installed edgekit; tests replace it."""
    folder = sshd.home / "edgekit-env/bin"
    folder.mkdir(parents=True)
    for name in ("edgekit", "python"):
        (folder / name).write_text("#!/bin/sh\nexit 9\n")
        (folder / name).chmod(0o755)
    yield folder / "python"
    shutil.rmtree(folder)


def test_a_board_is_examined_by_its_bare_python_and_nothing_is_left(connection: Connection, sshd: Sshd) -> None:
    before = sorted(sshd.home.rglob("*"))
    reporter = Silent()
    examined = examine_host(connection, reporter)
    found = {finding.check: finding for finding in examined.findings}
    assert {"board", "system", "python", "numpy", "onnxruntime", "disk", "service"} <= set(found)
    assert examined.python == probe(connection).python.path  # type: ignore[union-attr]
    assert reporter.steps[-1][1] == reporter.steps[-1][2] > 10
    assert sorted(sshd.home.rglob("*")) == before


def test_the_doctor_that_is_sent_needs_no_package_at_all(connection: Connection, python: Path) -> None:
    # With -S, Python has no site-packages folder.
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    found = {finding.check: finding for finding in examine_host(connection, Silent()).findings}
    assert found["disk"].status in ("ok", "warning")
    assert not any("check failed" in finding.text for finding in found.values()), found


def test_of_an_edgekit_that_is_a_link_its_own_environment_is_examined(
    connection: Connection, sshd: Sshd, tmp_path: Path
) -> None:
    for name, text in (("edgekit", "exit 9"), ("python", f'exec "{sys.executable}" "$@"')):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch '{tmp_path}/called-{name}'\n{text}\n")
        (tmp_path / name).chmod(0o755)
    link = sshd.home / ".local/bin/edgekit"  # as pipx makes it
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(tmp_path / "edgekit")
    try:
        examine_host(connection, Silent())
    finally:
        link.unlink()
    assert [path.name for path in tmp_path.glob("called-*")] == ["called-python"]


FINE = '{"schema": "edgekit.doctor/1.0", "findings": [%s]}'
FAULT = FINE % r'{"check": "disk\u001b[2J", "status": "fault", "text": "\u001b]0;x", "cure": "rm -rf /; \n$(x)"}'


def prints(python: Path, document: str, more: str = '{"python": "x"}') -> None:
    answer = python.with_name("answer")
    answer.write_text(json.dumps({"result": {**json.loads(document), **json.loads(more)}}))
    python.write_text(f"#!/bin/sh\ncat '{answer}'\nrm '{answer}'\n")


MISSING = '{"check": "numpy", "status": "fault", "text": "not installed", "cure": "pip install it"}'
MISSING_DETECTOR = '{"check": "detector", "status": "warning", "text": "missing", "cure": "copy it"}'


def test_missing_libraries_and_detector_of_a_new_board_are_a_note(
    connection: Connection, python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prints(python, FINE % MISSING)
    (finding,) = examine_host(connection, Silent()).findings
    assert (finding.status, finding.cure) == ("fault", "pip install it")
    # The same Python, on a board without edgekit.
    found = probe(connection)
    assert found.python is not None
    new = dataclasses.replace(found, python=dataclasses.replace(found.python, path=str(python)), commands=())
    monkeypatch.setattr(doctor, "probe", lambda _: new)
    for missing in (MISSING, MISSING_DETECTOR):
        prints(python, FINE % missing)
        (finding,) = examine_host(connection, Silent()).findings
        assert (finding.status, finding.cure) == ("unknown", None)


def test_faults_give_exit_code_1_and_no_terminal_escapes(sshd: Sshd, python: Path) -> None:
    prints(python, FAULT, r'{"python": "/\u001b[2J"}')
    done = run(sshd, "--host", "127.0.0.1")
    assert done.returncode == 1
    assert "1 fault: 127.0.0.1: disk\\x1b[2J" in done.stderr
    assert "→ rm -rf /; $(x)" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'no \033[2Jdisk' >&2; exit 1", "no \\x1b[2Jdisk"),
        ("echo '{\"result\": 3}'", "the board's response is not valid"),
        ("kill -9 $$", "ended with"),
    ],
)
def test_a_hostile_board_causes_one_harmless_line(sshd: Sshd, python: Path, script: str, message: str) -> None:
    python.write_text(f"#!/bin/sh\n{script}\n")
    done = run(sshd, "--host", "127.0.0.1")
    assert done.returncode == 4
    assert message in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr) < 2000
