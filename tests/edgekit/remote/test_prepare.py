"""Preparing a board: its properties, refusals, and an installation through a real sshd."""

from __future__ import annotations

import json
import platform
import re
import shlex
import shutil
import sys
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from edgekit.errors import HostError
from edgekit.remote import prepare as preparing
from edgekit.remote.payload import Target, dependency_wheels, own_code, pack
from edgekit.remote.prepare import EdgekitCommand, check_fit, clean, run_job
from edgekit.remote.prepare import prepare as prepare_with
from edgekit.remote.probe import Probe, parse_probe, probe
from edgekit.remote.ssh import Connection
from tests.waiting import wait_until

from .conftest import Sshd
from .release_board import Quiet

# Output of the emulated board of tests/virtual_pi.
TRIXIE = """root=/home/pi/.cache/edgekit/board
machine=aarch64
bits=64
glibc=glibc 2.41
system=Debian GNU/Linux 13 (trixie)
release=trixie
model=Raspberry Pi 3 Model B Plus Rev 1.3
memory_kib=948280
free_kib=5242880
clock=1000
python=3.13 64 0 /usr/bin/python3
"""
MODULES = ("numpy", "cv2", "onnxruntime", "click", "jinja2", "msgspec", "platformdirs", "rich")


@pytest.fixture
def board() -> Probe:
    return parse_probe(TRIXIE, 1000.0)


def test_properties_are_parsed(board: Probe) -> None:
    assert board.describe() == (
        "Raspberry Pi 3 Model B Plus Rev 1.3, Debian GNU/Linux 13 (trixie), Python 3.13, 926 MiB memory, "
        "5120 MiB disk free"
    )
    assert board.python is not None
    assert (board.glibc, board.python.version, board.python.picamera2) == ((2, 41), (3, 13), False)
    assert check_fit(board, "pi") == board.python


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("bits=64", "bits=32", "32-bit system.*64-bit Raspberry Pi OS. Nothing was installed"),
        ("python=3.13 64 0 /usr/bin/python3", "", "no python3"),
        ("python=3.13", "python=3.9", "Python 3.9 is too old, edgekit needs 3.11"),
        ("glibc=glibc 2.41", "glibc=", "GNU C library"),
    ],
)
def test_unsuitable_boards_are_refused_with_the_reason(old: str, new: str, message: str) -> None:
    with pytest.raises(HostError, match=message):
        check_fit(parse_probe(TRIXIE.replace(old, new), 1000.0), "pi")


@pytest.mark.usefixtures("packages")
def test_a_full_board_is_refused_before_anything_is_sent(board: Probe, connection: Connection) -> None:
    here = replace(board, machine=platform.machine(), free_bytes=1 << 20)
    with pytest.raises(HostError, match=r"1 MiB of the board's disk are free, \d+ MiB are needed"):
        prepare(connection, here)


def test_a_camera_needs_picamera2(board: Probe, connection: Connection) -> None:
    with pytest.raises(HostError, match="sudo apt install python3-picamera2"):
        prepare(connection, board, camera="picamera2")


def test_the_same_files_make_the_same_archive_of_edgekit() -> None:
    first = own_code()
    own_code.cache_clear()
    assert own_code() == first
    with zipfile.ZipFile(BytesIO(first)) as archive:
        names = archive.namelist()
    assert {"edgekit/__init__.py", "edgekit/device/stages.py", "edgekit/assets/default.onnx"} <= set(names)
    assert len(names) == len(set(names))
    assert not any("__pycache__" in name for name in names)


# A download of one file with pip.
NEW_WHEEL = 'while [ "$1" != --dest ]; do shift; done; touch "$2/new.whl"'
TARGET = Target("aarch64", (3, 13), (2, 41))


def test_boards_of_one_platform_share_one_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, slow = tmp_path / "downloads.txt", "sleep 0.2"  # long enough for the other threads to start
    use_as_pip(tmp_path, monkeypatch, f'echo "$@" >> {log}; {slow}; {NEW_WHEEL}')
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: [path.name for path in dependency_wheels(TARGET, tmp_path)], range(4)))
    assert found == [["new.whl"]] * 4
    (arguments,) = log.read_text().splitlines()
    names = {re.split("[<>=!]", text)[0] for text in arguments.split()}
    assert {"numpy", "onnxruntime", "opencv-python-headless", "click"} <= names
    assert not {"torch", "ncnn", "paho-mqtt"} & names
    dependency_wheels(replace(TARGET, extras=("ncnn",), constraints=("numpy<2",)), tmp_path)
    assert {"ncnn", "numpy<2"} <= {re.split("[>=]", text)[0] for text in log.read_text().splitlines()[1].split()}


@pytest.mark.parametrize(
    ("stderr", "reason"),
    [
        ("WARNING: slow\nERROR: no match for numpy\nERROR: No matching distribution\n", "ERROR: no match for numpy"),
        ("ERROR: Exception:\nTraceback:\n  x\nOSError: [Errno 28] No space left on device\n", "OSError: [Errno 28]"),
    ],
)
def test_a_failed_download_is_reported_with_pips_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stderr: str, reason: str
) -> None:
    use_as_pip(tmp_path, monkeypatch, f"printf %s {shlex.quote(stderr)} >&2; exit 1")
    with pytest.raises(HostError, match=f"cannot be downloaded: pip: .*{re.escape(reason)}"):
        dependency_wheels(TARGET, tmp_path)


def use_as_pip(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Make the download call a shell script in place of `python -m pip`."""
    program = folder / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.delenv("EDGEKIT_OFFLINE", raising=False)


def test_what_a_killed_download_left_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_as_pip(tmp_path, monkeypatch, "exit 1")
    with pytest.raises(HostError, match="cannot be downloaded"):
        dependency_wheels(TARGET, tmp_path)
    assert list((tmp_path / "wheels").iterdir()) == []
    use_as_pip(tmp_path, monkeypatch, NEW_WHEEL)
    (wheel,) = dependency_wheels(TARGET, tmp_path)
    left = wheel.parent.with_name(f".new-{wheel.parent.name}")
    wheel.parent.rename(left)
    (left / "old.whl").touch()
    assert [path.name for path in dependency_wheels(TARGET, tmp_path)] == ["new.whl"]


def test_platforms_reach_back_from_the_boards_own_library() -> None:
    platforms = Target("aarch64", (3, 11), (2, 28)).platforms
    assert platforms[0] == "manylinux_2_28_aarch64"
    assert "manylinux_2_17_aarch64" in platforms
    assert "manylinux_2_29_aarch64" not in platforms
    assert platforms[-1] == "manylinux2014_aarch64"


CODE = """
import json, sys, numpy
print(json.dumps([sys.argv[1:], numpy.NAME, job := json.loads(sys.stdin.readline())]), flush=True)
if "started" in job:
    open(job["started"], "w").close()
    sys.stdin.read()
"""


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Small wheels that replace the real ones, which would be downloaded."""
    made = [make_wheel(tmp_path, name, f"NAME = {name!r}") for name in MODULES]
    own = zipped({"edgekit/__init__.py": "", "edgekit/cli/__init__.py": "", "edgekit/cli/__main__.py": CODE})
    monkeypatch.setattr(preparing, "own_code", lambda: own)
    monkeypatch.setattr(preparing, "dependency_wheels", lambda _: made)
    return made


def zipped(files: dict[str, str]) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def make_wheel(folder: Path, name: str, code: str) -> Path:
    path, data = folder / f"{name}-1.0-py3-none-any.whl", f"{name}-1.0.data"
    files = {f"{name}/__init__.py": code, f"{data}/purelib/{name}_extra.py": "", f"{data}/scripts/{name}": "#!python\n"}
    path.write_bytes(zipped(files))
    return path


def prepare(connection: Connection, board: Probe | None = None, on_line: Any = print, **options: Any) -> EdgekitCommand:
    board = board or probe(connection)
    uploads = options.pop("uploads", ())
    return prepare_with(connection, board, uploads, install=True, reporter=Quiet(on_line), **options)


@pytest.mark.usefixtures("packages")
def test_a_board_is_prepared_once(connection: Connection, sshd: Sshd, tmp_path: Path) -> None:
    lines: list[str] = []
    cache = sshd.home / ".cache/edgekit"
    first = prepare(connection, on_line=lines.append)
    assert first.sent_bytes > 0
    assert lines == ["making an environment", "importing the installed packages"]
    done = run_job(connection, probe(connection), first, {"a 'b'": "$(x)\n`y`"}, print)
    assert json.loads(done.text) == [["job"], "numpy", {"a 'b'": "$(x)\n`y`"}]
    # Nothing is sent twice.
    assert prepare(connection) == replace(first, sent_bytes=0)
    # The space for models is checked even if the board has everything else.
    (tmp_path / "model.onnx").write_bytes(b"x" * (2 << 20))
    model = pack(tmp_path / "model.onnx", "model")
    again = probe(connection)
    with pytest.raises(HostError, match="1 MiB of the board's disk are free, 102 MiB are needed"):
        prepare(connection, replace(again, free_bytes=1 << 20), uploads=[model])
    assert prepare(connection, uploads=[model]).sent_bytes == 2 << 20
    assert Path(again.stored_path(model)).read_bytes() == model.path.read_bytes()
    assert prepare(connection, uploads=[model]).sent_bytes == 0
    site = next(cache.glob("board/envs/*/lib/*/site-packages"))
    assert (site / "numpy_extra.py").exists()
    assert not list(site.rglob("scripts"))

    shutil.rmtree(cache / "ncnn-checked", ignore_errors=True)  # from an edgekit on the board in other tests
    (cache / "yunet.onnx.failed").touch()
    assert clean(connection) > 0
    assert not list(cache.iterdir()), "the folder stays, because a system service may need it"
    for name in ("yunet.onnx", "yunet.onnx.failed"):
        (cache / name).touch()
    assert clean(connection) == 0
    assert [path.name for path in cache.iterdir()] == ["yunet.onnx"]
    shutil.rmtree(cache)


@pytest.mark.usefixtures("packages")
def test_while_an_edgekit_runs_its_files_are_neither_replaced_nor_removed(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Connection(sshd.host()) as other:
        with running_edgekit(sshd, tmp_path):
            with pytest.raises(HostError, match="running edgekit uses the files"):
                clean(other)
            monkeypatch.setattr(preparing, "own_code", lambda: zipped({"edgekit/__init__.py": "# another version"}))
            with pytest.raises(HostError, match="another edgekit works on this board"):
                prepare(other)
        wait_until(lambda: is_cleaned(other))


@contextmanager
def running_edgekit(sshd: Sshd, tmp_path: Path) -> Iterator[None]:
    """Run edgekit on the board during the block; it ends with its connection."""
    started = tmp_path / "started"
    with Connection(sshd.host()) as working:
        ready = prepare(working)

        def work() -> None:
            with pytest.raises(HostError):
                run_job(working, probe(working), ready, {"started": str(started)}, print)

        thread = threading.Thread(target=work)
        thread.start()
        wait_until(started.exists)
        yield
        working.close()
        thread.join(20)
        assert not thread.is_alive()


def is_cleaned(connection: Connection) -> bool:
    """Clean the board; return False if an edgekit on it has not ended yet."""
    try:
        return clean(connection) > 0
    except HostError:
        return False


def test_the_environments_of_two_versions_are_kept(
    connection: Connection, packages: list[Path], tmp_path: Path
) -> None:
    made = []
    for version in ("b", "c", "d"):
        packages.append(make_wheel(tmp_path, version, ""))
        made.append(prepare(connection))
    assert [Path(command.environment or "").is_dir() for command in made] == [False, True, True]
    clean(connection)


def test_an_environment_that_cannot_be_imported_is_not_kept(
    connection: Connection, packages: list[Path], tmp_path: Path, sshd: Sshd
) -> None:
    (tmp_path / "bad").mkdir()
    crash = "import os, signal\nos.kill(os.getpid(), signal.SIGILL)"
    packages[2] = make_wheel(tmp_path / "bad", "onnxruntime", crash)
    with pytest.raises(HostError, match="importing onnxruntime ended with an illegal instruction"):
        prepare(connection)
    assert [path.name for path in (sshd.home / ".cache/edgekit/board").iterdir()] == ["lock"]
    clean(connection)
