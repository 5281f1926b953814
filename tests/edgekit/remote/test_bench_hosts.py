"""`edgekit bench --host` through a real sshd, with good and hostile edgekits on the board."""

from __future__ import annotations

import getpass
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest

import edgekit
from edgekit.remote.parallel import INTERRUPTED
from edgekit.report.document import read_document
from tests.waiting import wait_until

from .commands import call, ssh_words
from .conftest import Sshd

QUICK = (
    *("--seconds", "0.01", "--processes", "1", "--threads", "1"),
    *("--cool-down", "0", "--allow-throttled", "--no-pipeline"),
)
SOURCE = Path(edgekit.__file__).parents[1]
REAL = f'exec env PYTHONPATH="{SOURCE}" "{sys.executable}" -m edgekit.cli "$@"'
RESULT = SOURCE / "benchmarks/results/vm-epyc-2.json"
Plant = Callable[[str], None]


@pytest.fixture
def plant(sshd: Sshd) -> Iterator[Plant]:
    """Return a function that writes a shell script to ~/.local/bin/edgekit of the board."""
    path = sshd.home / ".local/bin/edgekit"
    path.parent.mkdir(parents=True, exist_ok=True)

    def write(script: str) -> None:
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    yield write
    path.unlink(missing_ok=True)


def bench_words(sshd: Sshd, *more: object) -> list[object]:
    return ["bench", *more, *QUICK, "--no-install", *ssh_words(sshd)]


def bench(sshd: Sshd, *more: object) -> subprocess.CompletedProcess[str]:
    return call(*bench_words(sshd, *more))


def bench_with_install(sshd: Sshd, *more: object) -> subprocess.CompletedProcess[str]:
    return call(*(word for word in bench_words(sshd, *more) if word != "--no-install"))


def test_a_board_measures_with_the_options_and_names_given_here(
    sshd: Sshd, plant: Plant, tiny_model: Path, tmp_path: Path
) -> None:
    plant(REAL)
    model, source = tmp_path / "it's; $(touch planted).onnx", tmp_path / "it's $(touch planted).png"
    model.write_bytes(tiny_model.read_bytes())
    cv2.imwrite(str(source), np.zeros((48, 64, 3), np.uint8))
    report = tmp_path / "report.json"
    options = ("--batch", "3", "--note", "fan=none; $(off)", "--detector", "none", "-o", report)
    words = [word for word in bench_words(sshd, model, "--host", "127.0.0.1") if word != "--no-pipeline"]
    done = call(*words, "--source", source, *options)
    assert done.returncode == 0, done.stderr
    document = json.loads(report.read_text())
    (board,) = document["boards"]
    assert [each["name"] for each in board["models"]] == [str(model)]
    assert {cell["model"] for cell in board["cells"]} == {str(model)}
    assert board["clip"]["source"] == source.name
    assert {cell["batch"] for cell in board["cells"] if cell["kind"] == "net"} == {3}
    assert board["notes"] == {"fan": "none; $(off)"}
    assert document["hosts"][0]["overhead_s"] > 0
    assert not list(sshd.home.rglob("planted"))


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exit 3", "edgekit ended with exit code 3"),
        ('echo \'{"error": "no \\u001b[2Jdisk"}\'; exit 1', "no \\x1b[2Jdisk"),
        ('echo \'{"result": {"schema": "edgekit.bench/99.0"}}\'', "its report"),
        (f"echo '{{\"result\": '; cat '{RESULT}'; echo '}}'", "its report has no measurement of"),
        ("kill -9 $$", "ended with"),
    ],
)
def test_a_hostile_board_causes_one_harmless_line(
    sshd: Sshd, plant: Plant, tiny_model: Path, tmp_path: Path, script: str, message: str
) -> None:
    plant(script)
    report = tmp_path / "report.json"
    done = bench(sshd, tiny_model, "--host", "127.0.0.1", "-o", report)
    assert (done.returncode, done.stdout.count("\x1b")) == (4, 0)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr
    assert len(done.stderr) < 5000
    assert not report.exists()


def test_a_board_measures_both_engines_and_gets_the_missing_one(
    sshd: Sshd, plant: Plant, tiny_model: Path, tiny_ncnn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(REAL)
    report = tmp_path / "report.json"
    done = bench(sshd, tiny_model, tiny_ncnn, "--host", "127.0.0.1", "--no-pipeline", "-o", report)
    assert done.returncode == 0, done.stderr
    (board,) = json.loads(report.read_text())["boards"]
    assert {(Path(cell["model"]).suffix, cell["engine"]) for cell in board["cells"]} == {
        (".onnx", "onnxruntime"),
        (".ncnn", "ncnn"),
    }
    # Offline, the board cannot get an environment.
    for name, value in (("EDGEKIT_OFFLINE", "1"), ("XDG_CACHE_HOME", str(tmp_path)), ("HOME", str(tmp_path))):
        monkeypatch.setenv(name, value)
    done = bench_with_install(sshd, tiny_model, "--host", "127.0.0.1")
    assert (done.returncode, "EDGEKIT_OFFLINE is set" in done.stderr) == (4, True), done.stderr


def test_no_install_fails_on_a_board_without_edgekit(sshd: Sshd, tiny_model: Path) -> None:
    done = bench(sshd, tiny_model, "--host", "127.0.0.1")
    if done.returncode == 0:
        pytest.skip("this machine has an edgekit on every user's path")
    assert "leave out --no-install" in done.stderr


def interrupted(words: Iterable[object], started: Path) -> tuple[str, str]:
    """Run a command, send it SIGINT when the file `started` exists, and return its stdout and stderr."""
    with subprocess.Popen(
        [sys.executable, "-m", "edgekit.cli", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        text=True,
    ) as process:

        def errors() -> str:
            process.kill()  # or a planted `sleep` would be waited for
            return process.communicate()[1]

        wait_until(started.exists, alive=lambda: process.poll() is None, failure=errors, patience_s=240)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130, stderr
    return stdout, stderr


def test_ctrl_c_ends_the_command_on_the_board(sshd: Sshd, plant: Plant, tiny_model: Path, tmp_path: Path) -> None:
    started = tmp_path / "started"
    plant(f"echo $$ >'{started}.new'; mv '{started}.new' '{started}'\n{REAL}")
    report = tmp_path / "report.json"
    words = [*bench_words(sshd, tiny_model, "--host", "127.0.0.1", "-o", report), "--seconds", "600"]
    _, stderr = interrupted(words, started)
    assert "Traceback" not in stderr
    there = Path("/proc") / started.read_text().strip()
    wait_until(lambda: not there.exists())
    home = os.fsencode(f"HOME={sshd.home}")
    wait_until(lambda: not processes_with(home), failure=lambda: f"still on the board: {processes_with(home)}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["started"]
    assert ".cache/edgekit/board/report.json" in stderr


def processes_with(variable: bytes) -> list[bytes]:
    """Return the command lines of the processes with an environment variable, NAME=VALUE."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if variable in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_bytes())
    return found


DISCONNECTING = """
import os, time
from edgekit.cli import main
from edgekit.device.benchmark import rounds

def run_worker(job):
    result = rounds.run_worker(job)
    if not disconnected:
        disconnected.append(True)
        return result
    os.kill(os.getppid(), 9)  # sshd
    while True:  # a signal that arrives just before a sleep does not end it
        time.sleep(0.1)

disconnected = []
rounds.measure_all.__kwdefaults__["run"] = run_worker
main()
"""


def test_after_a_lost_connection_the_report_is_on_the_board(
    sshd: Sshd, plant: Plant, tiny_model: Path, tiny_image_model: Path
) -> None:
    report = sshd.home / ".cache/edgekit/board/report.json"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text("of an earlier benchmark")
    plant('kill -9 "$PPID"; sleep 0.2')
    done = bench(sshd, tiny_model, "--host", "127.0.0.1")
    assert done.returncode == 4
    assert "error: 127.0.0.1: the connection was lost" in done.stderr
    where = f"look for its report on the board in '{report}', or benchmark this board again\n"
    assert f"; no measurement arrived: {where}" in done.stderr
    assert not report.exists()

    plant(f"""exec env PYTHONPATH="{SOURCE}" "{sys.executable}" -c '{DISCONNECTING}' "$@" """)
    done = bench(sshd, tiny_model, tiny_image_model, "--host", "127.0.0.1")
    assert done.returncode == 4
    assert "the connection was lost" in done.stderr
    wait_until(report.exists, failure=lambda: done.stderr)
    (board,) = read_document(report).boards
    assert [model.name for model in board.models] == [str(tiny_model), str(tiny_image_model)]
    assert len(board.cells) == 1
    assert not board.complete


def test_ctrl_c_keeps_the_reports_of_finished_boards(
    sshd: Sshd, plant: Plant, tiny_model: Path, tmp_path: Path
) -> None:
    started, report, boards = tmp_path / "started", tmp_path / "report.json", tmp_path / "boards.toml"
    # From the second board on, a program that only ends with its stdin, as edgekit does.
    plant(f"mkdir '{tmp_path / 'first'}' 2>/dev/null && {REAL}\n: >'{started}'; exec cat >/dev/null")
    addresses = {"one": "127.0.0.1", "two": f"{getpass.getuser()}@127.0.0.1", "three": "localhost"}
    boards.write_text("".join(f'[[host]]\nhost = "{host}"\nlabel = "{label}"\n' for label, host in addresses.items()))
    words = bench_words(sshd, tiny_model, "--inventory", boards, "--parallel", "1", "-o", report)
    stdout, stderr = interrupted(words, started)
    assert "one: done, 1 of 3\n" in stderr
    assert "interrupted: the report has 1 of 3 boards" in stderr
    assert "net" in stdout
    document = json.loads(report.read_text())
    assert [board["label"] for board in document["boards"]] == ["one"]
    errors = [host["error"] for host in document["hosts"]]
    assert errors == [None, *[INTERRUPTED] * 2]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--host", "-oProxyCommand=x"), "is not [user@]name"),
        (("--host", "a", "--inventory", "nowhere.toml"), "nowhere.toml"),
        ((), "--port has no effect without --host or --inventory"),
    ],
)
def test_bad_options_are_refused_with_one_line(
    sshd: Sshd, tiny_model: Path, more: tuple[str, ...], message: str
) -> None:
    done = bench(sshd, tiny_model, *more)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_failing_boards_do_not_affect_the_others(sshd: Sshd, plant: Plant, tiny_model: Path, tmp_path: Path) -> None:
    plant(REAL)
    boards = tmp_path / "boards.toml"
    boards.write_text(
        f'[[host]]\nhost = "127.0.0.1"\nlabel = "dead"\nport = 1\n[[host]]\nhost = "no-such.invalid"\n'
        f'[[host]]\nhost = "localhost"\nlabel = "unknown key"\nport = {sshd.port}\n'
        f'[[host]]\nhost = "{getpass.getuser()}@127.0.0.1"\nlabel = "refused"\nport = {sshd.port}\n'
        f'identity = "{sshd.folder}/other_id"\n'
        f'[[host]]\nhost = "127.0.0.1"\nlabel = "good"\nport = {sshd.port}\n'
    )
    done = bench(sshd, tiny_model, "--inventory", boards, "--json")
    assert done.returncode == 4
    document = json.loads(done.stdout)
    assert [board["label"] for board in document["boards"]] == ["good"]
    errors = {host["label"]: host["error"] for host in document["hosts"] if host["error"]}
    assert list(errors) == ["dead", "no-such.invalid", "unknown key", "refused"]
    assert "dead: the port is closed" in done.stderr
    assert "4 of 5 boards failed: dead, no-such.invalid, unknown key, refused\n" in done.stderr
    # A report is often published, so its errors name a board by its label, and a key by its file name.
    assert "127.0.0.1" not in " ".join(errors.values())
    assert "-i other_id " in errors["refused"]


FAILING = """
from edgekit.cli import main
from edgekit.device.benchmark import rounds
from edgekit.errors import EdgekitError

left = [1]

def run_worker(job):
    if not left:
        raise EdgekitError("the memory ran out")
    left.pop()
    return rounds.run_worker(job)

rounds.measure_all.__kwdefaults__["run"] = run_worker
main()
"""


def test_a_board_that_fails_after_some_measurements_keeps_them(
    sshd: Sshd, plant: Plant, tiny_model: Path, tiny_image_model: Path, tmp_path: Path
) -> None:
    plant(f"""exec env PYTHONPATH="{SOURCE}" "{sys.executable}" -c '{FAILING}' "$@" """)
    report, page = tmp_path / "report.json", tmp_path / "report.html"
    done = bench(sshd, tiny_model, tiny_image_model, "--host", "127.0.0.1", "-o", report, "--html", page)
    assert done.returncode == 4
    assert "edgekit: error: 127.0.0.1: the memory ran out" in done.stderr
    document = json.loads(report.read_text())
    (board,), (host,) = document["boards"], document["hosts"]
    assert board["complete"] is False
    assert board["cells"]
    assert host["error"] == "the memory ran out"
    assert "INTERRUPTED" in page.read_text()
    assert "NOT MEASURED" not in page.read_text()


@pytest.mark.slow
def test_a_board_measures_the_formats_of_a_model(
    sshd: Sshd, plant: Plant, draw_faces: Callable[[Path, dict[str, int]], Path], tmp_path: Path
) -> None:
    plant(REAL)
    data = draw_faces(tmp_path / "faces", {"Training": 7, "PrivateTest": 7})
    quick = [word for word in QUICK if word != "--no-pipeline"]
    given = ("--formats", "int8", "--data", data, "--host", "127.0.0.1", "--no-install", "--json")
    done = call("bench", "default", *given, *quick, *ssh_words(sshd))
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["target"] == "generic"
    assert [each["format"] for each in document["formats"]] == ["float32", "int8"]
    assert document["recommended"][0]["board"] == "127.0.0.1"
    (board,) = document["benchmark"]["boards"]
    assert {cell["model"] for cell in board["cells"]} == {"float32", "int8"}
    assert document["benchmark"]["hosts"][0]["sent_bytes"] > 0
